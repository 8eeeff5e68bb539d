"""Score a folder of predictions against a folder of references, ``NAME.nii.gz`` by name.

All pairs are read and checked before the first is scored, so that a wrong file is reported at
once, and every case is scored on the same classes. Only one pair is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.engine.evaluation.segmentation_metrics import (
    UNANNOTATED,
    evaluate_case,
    summarize,
)
from napari_dycon.errors import GeometryError, LabelError, UserError
from napari_dycon.io import is_scan, read_label, read_volume, scan_name
from napari_dycon.io.volume import Volume, same_grid

MAP_ENDINGS = ("_uncertainty", "_disagreement")

Progress = Callable[[int, int, str], None]


def evaluate_folders(
    predictions: Path,
    references: Path,
    progress: Progress | None = None,
    *,
    structures: int | None = None,
) -> dict[str, Any]:
    """Score every prediction against the reference of the same name.

    ``NAME_uncertainty.nii.gz`` beside a prediction is judged as well; it and
    ``NAME_disagreement.nii.gz`` are not predictions themselves.

    Parameters
    ----------
    predictions, references : folders of ``NAME.nii.gz`` or ``NAME.nii``, on the same grids
    progress : called after each case with cases done, cases in all, and its name
    structures : how many the network tells apart, background not counted, where some of them occur
        in no file; uncertainty maps are relative to it, so that the calibration error depends on it

    Returns
    -------
    ``"cases"``: name to what ``metrics.evaluate_case`` returns; ``"summary"``: see
    ``metrics.summarize``; ``"classes"``: all values but 0 in any of the files; ``"missing"``:
    references without a prediction, not part of any mean; ``"warnings"``: sentences for people

    Raises
    ------
    UserError
        A folder is missing or empty, or no prediction has a reference.
    GeometryError
        A prediction is not on its reference's grid.
    LabelError
        A prediction holds 255, or there is nothing to score.
    """
    found = _scans(predictions, "predictions")
    wanted = _scans(references, "references")
    extra = sorted(set(found) - set(wanted))
    if len(extra) == len(found):
        raise UserError(
            f"No prediction in {predictions} has a reference of the same name in {references}; "
            f"found for instance {_some(extra, 1)} and {_some(sorted(wanted), 1)}. Expected files "
            "named alike."
        )
    missing = sorted(set(wanted) - set(found))
    warnings = []
    if extra:  # usual where only some scans have a true mask
        warnings.append(
            f"{_count(extra, 'prediction')} without a reference, left out: {_some(extra)}."
        )
        found = {name: path for name, path in found.items() if name in wanted}
    if missing:
        warnings.append(
            f"{_count(missing, 'reference')} without a prediction, not part of any mean: "
            f"{_some(missing)}."
        )

    classes: set[int] = set()
    blank: list[str] = []
    for name in sorted(found):
        prediction, reference = _pair(found[name], wanted[name])
        if (reference == UNANNOTATED).all():
            blank.append(name)
            continue
        classes.update(int(v) for array in (prediction, reference) for v in np.unique(array))
    classes -= {0, UNANNOTATED}
    if blank:
        warnings.append(
            f"{_count(blank, 'reference')} without an annotated voxel (all are 255), left out: "
            f"{_some(blank)}."
        )
    names = sorted(set(found) - set(blank))
    if not names:
        raise LabelError(f"No reference in {references} has an annotated voxel: all are 255.")

    values = sorted(classes)
    if not values:
        raise LabelError(
            f"Predictions in {predictions} and references in {references} are all 0: there is no "
            "class to score. Check that these are label files."
        )
    structures = max(structures or 0, len(values))
    cases: dict[str, Any] = {}
    for number, name in enumerate(names, start=1):
        cases[name] = _evaluate(found[name], wanted[name], values, structures)
        if progress is not None:
            progress(number, len(names), name)
    return {
        "cases": cases,
        "summary": summarize(cases),
        "classes": values,
        "missing": missing,
        "warnings": warnings,
    }


def _evaluate(
    prediction: Path, reference: Path, classes: list[int], structures: int
) -> dict[str, Any]:
    truth = read_label(reference)
    mask = read_label(prediction, like=truth)
    doubt = _uncertainty_of(prediction, truth)
    return evaluate_case(
        mask.array,
        truth.array,
        truth.spacing_mm,
        classes,
        uncertainty=doubt,
        n_classes=structures + 1,
    )


def _pair(prediction: Path, reference: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Prediction and reference (D, H, W), checked against each other."""
    truth = read_label(reference)
    mask = read_label(prediction, like=truth)
    if (mask.array == UNANNOTATED).any():
        raise LabelError(
            f"{prediction.name} holds the value 255, which stands for 'not annotated'; a "
            "prediction is expected to name a class (0 to 254) in every voxel. If 255 is its "
            "foreground, write it as the class's value, such as 1."
        )
    return mask.array, truth.array


def _uncertainty_of(prediction: Path, truth: Volume) -> npt.NDArray[np.float32] | None:
    """The uncertainty map beside a prediction, checked; None when there is none."""
    name = scan_name(prediction)
    for ending in (".nii.gz", ".nii"):
        path = prediction.with_name(f"{name}_uncertainty{ending}")
        if not path.exists():
            continue
        volume = read_volume(path, check_values=False)
        difference = same_grid(volume, truth)
        if difference is not None:
            raise GeometryError(
                f"{path.name} is not on the grid of its reference: {difference}. Predict again on "
                "the scan that the reference was drawn on, or remove the map."
            )
        values = np.asarray(volume.array, np.float32)
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-3 and high <= 1.0 + 1e-3):  # also when NaN
            raise UserError(
                f"{path.name} holds values from {low:g} to {high:g}; an uncertainty map is "
                "expected to lie in [0, 1]. Remove it or predict again."
            )
        return values
    return None


def _scans(folder: Path, what: str) -> dict[str, Path]:
    """Label files of a folder by case name."""
    if not folder.is_dir():
        raise UserError(
            f"The folder of {what} {folder} does not exist or is not a folder. Check its name."
        )
    scans: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or not is_scan(path):
            continue
        name = scan_name(path)
        if name.endswith(MAP_ENDINGS):
            continue
        if name in scans:
            raise UserError(
                f"{folder} holds both {scans[name].name} and {path.name}: one file a case is "
                "expected. Remove one of them."
            )
        scans[name] = path
    if not scans:
        raise UserError(
            f"The folder of {what} {folder} holds no scan: files named NAME.nii.gz are expected."
        )
    return scans


def _count(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"


def _some(names: list[str], most: int = 5) -> str:
    """The first few names, and how many more."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
