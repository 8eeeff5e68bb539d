"""The command ``evaluate``: compare predicted masks with reference masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_dycon.cli.console import make_progress_bar, print_json, print_status, print_table
from napari_dycon.cli.options import JsonOption, split_names
from napari_dycon.cli.tables import build_evaluation_table
from napari_dycon.core.atomic import write_bytes
from napari_dycon.engine.evaluation.formatting import (
    METRIC_COLUMNS,
    MISSED_NOTE,
    has_missed_structures,
)
from napari_dycon.errors import UserError
from napari_dycon.exports.csv_table import encode_csv, escape_formula, format_csv
from napari_dycon.project.prediction_origin import count_origins

CSV_COLUMNS = ("case", "class", "name", *(column.key for column in METRIC_COLUMNS), "missed")
DIGITS = 6  # of numbers in the CSV file


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    references: Annotated[
        Path, typer.Argument(help="Folder of reference masks with the same file names.")
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names of the classes 1, 2, ..., separated by commas. Default: as recorded with "
            "the predictions, in a dataset.json, or in the project of the folders.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the metrics of each case to a CSV file."),
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=254,
            metavar="N",
            help="Number of classes the network predicts, without background; needed for the "
            "calibration error if a class is absent from all files.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare predicted masks with reference masks.

    Reports Dice, Jaccard, HD95 and ASD in mm, volumes in ml, and calibration.

    Cases whose files do not fit each other are left out and listed at the end. The exit code is
    then 2.
    """
    from napari_dycon.engine.evaluation.class_names import find_class_names
    from napari_dycon.engine.evaluation.folders import evaluate_folders

    if csv is not None:
        _check_csv(csv)
    chosen = None if classes is None else _parse_class_names(classes)
    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Comparing", total=None)
        result = evaluate_folders(
            predictions,
            references,
            lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Compared {name}"
            ),
            n_structures=num_classes,
            keep_errors=True,
        )
    names = find_class_names(predictions, references) if chosen is None else chosen
    if chosen is not None:
        result["warnings"].extend(_describe_unnamed(result["classes"], chosen))
    if csv is not None:
        write_bytes(csv, encode_csv(_format_csv(result, names)))
    origins = count_origins(predictions / f"{name}.nii.gz" for name in result["cases"])
    if as_json:
        known = {str(value): names[value] for value in result["classes"] if value in names}
        print_json({**result, "names": known, "runs": origins})
    else:
        _show_result(result, names, origins)
        if csv is not None:
            print_status(f"Wrote {csv}")
    _raise_if_any_failed(result)


def _show_result(
    result: Mapping[str, Any], names: Mapping[int, str], origins: Mapping[str, int]
) -> None:
    print_table(build_evaluation_table(result, names))
    if len(origins) == 1:
        print_status(f"Predicted by {next(iter(origins))}.")
    elif origins:
        counts = ", ".join(f"{count} by {run}" for run, count in origins.items())
        print_status(f"The predictions are of different runs: {counts}. Their means mix them.")
    if has_missed_structures(result):
        print_status(MISSED_NOTE)
    for line in result["warnings"]:
        print_status(line)


def _raise_if_any_failed(result: Mapping[str, Any]) -> None:
    """List the cases that could not be compared, and end with an error."""
    failed = result["failed"]
    if not failed:
        return
    for name, reason in failed.items():
        print_status(f"{name} was left out: {reason}")
    total = len(failed) + result["summary"]["cases"]
    raise UserError(f"{len(failed)} of {total} cases could not be compared; the others were.")


def _parse_class_names(text: str) -> dict[int, str]:
    """Parse the names of the classes 1, 2, and so on."""
    names = split_names(text)
    folded = [name.casefold() for name in names]
    for name in names:
        if not name or folded.count(name.casefold()) > 1:
            problem = f"names two classes {name!r}" if name else "holds an empty name"
            raise UserError(f"--classes {problem}; expected one name for each class: a,b,c.")
    return dict(enumerate(names, start=1))


def _describe_unnamed(values: Sequence[int], names: Mapping[int, str]) -> list[str]:
    """Describe the classes of the masks that have no name."""
    unnamed = [str(value) for value in values if value not in names]
    if not unnamed:
        return []
    plural = "" if len(unnamed) == 1 else "es"
    return [f"--classes has no name for the class{plural} {', '.join(unnamed)} of these masks."]


def _check_csv(path: Path) -> None:
    """Reject a file that cannot be written, before anything is computed."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"{path} cannot be written: expected a file in an existing folder.")
    if path.suffix.lower() in (".gz", ".nii", ".nrrd", ".mha", ".json"):
        raise UserError(f"{path} is no name of a CSV file; expected one such as metrics.csv.")


def _format_csv(result: Mapping[str, Any], names: Mapping[int, str]) -> str:
    """Format the metrics of each case and class, one row each."""
    rows = []
    for case, scores_of_case in result["cases"].items():
        for value, scores in scores_of_case["classes"].items():
            metrics = [scores[column.key] for column in METRIC_COLUMNS]
            numbers = ["" if number is None else round(number, DIGITS) for number in metrics]
            name = escape_formula(names.get(int(value), ""))
            missed = "yes" if scores["missed"] else "no"
            rows.append([escape_formula(case), value, name, *numbers, missed])
    return format_csv(CSV_COLUMNS, rows)
