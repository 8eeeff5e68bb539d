"""The command ``evaluate``: compare predicted masks with reference masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_dycon.cli.console import make_progress_bar, print_json, print_status, print_table
from napari_dycon.cli.options import JsonOption
from napari_dycon.cli.tables import build_evaluation_table
from napari_dycon.engine.evaluation.formatting import MISSED_NOTE, has_missed_structures


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    references: Annotated[
        Path, typer.Argument(help="Folder of reference masks with the same file names.")
    ],
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
    """
    from napari_dycon.engine.evaluation.folders import evaluate_folders

    with make_progress_bar(as_json) as progress:
        task = progress.add_task("Comparing", total=None)
        result = evaluate_folders(
            predictions,
            references,
            lambda done, total, name: progress.update(
                task, completed=done, total=total, description=f"Compared {name}"
            ),
            n_structures=num_classes,
        )
    if as_json:
        print_json(result)
        return
    print_table(build_evaluation_table(result))
    if has_missed_structures(result):
        print_status(MISSED_NOTE)
    for line in result["warnings"]:
        print_status(line)
