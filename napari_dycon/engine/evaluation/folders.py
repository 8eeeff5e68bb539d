"""Evaluation of a folder of predictions against references with the same file names.

All pairs are read and checked before the first is scored, so that an invalid file is reported
immediately and every case is scored on the same classes. Only one pair is in memory at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import UNANNOTATED, ItemProgressCallback, LabelArray
from napari_dycon.engine.evaluation.file_pairs import (
    CaseErrors,
    Pairs,
    list_some,
    match_files,
    pluralize,
)
from napari_dycon.engine.evaluation.segmentation_metrics import evaluate_case, summarize
from napari_dycon.errors import GeometryError, LabelError, UserError
from napari_dycon.io import read_label, read_volume, scan_name
from napari_dycon.io.scan_detection import (
    describe_scan_texture,
    describe_scan_values,
)
from napari_dycon.io.volume import Volume, grid_difference


def evaluate_folders(
    predictions: Path,
    references: Path,
    on_progress: ItemProgressCallback | None = None,
    *,
    n_structures: int | None = None,
    keep_errors: bool = False,
) -> dict[str, Any]:
    """Score every prediction against the reference of the same name.

    ``NAME_uncertainty.nii.gz`` beside a prediction is evaluated as well; it and
    ``NAME_disagreement.nii.gz`` are not predictions themselves.

    Parameters
    ----------
    predictions, references : folders of ``NAME.nii.gz`` or ``NAME.nii``, on the same grids
    on_progress : called after each case with cases done, total cases, and its name
    n_structures : number of classes the network predicts, without background, where some of them
        occur in no file; uncertainty maps are relative to it, and so is the calibration error
    keep_errors : whether cases whose files cannot be compared are left out; without it, or if no
        case is left, the first error is raised

    Returns
    -------
    ``"cases"``: result of ``evaluate_case`` by name; ``"summary"``: see ``summarize``;
    ``"classes"``: all values except 0 in any of the files; ``"missing"``: references without a
    prediction, not part of any mean; ``"failed"``: reasons by name of the cases that could not be
    compared; ``"warnings"``: sentences to show to the user

    Raises
    ------
    UserError
        A folder is missing or empty, both are the same, or no prediction has a reference.
    GeometryError
        The grids of a prediction and its reference differ.
    LabelError
        A folder contains scans instead of masks, a prediction contains 255, or there is nothing to
        score.
    """
    matched = match_files(predictions, references)
    warnings = list(matched.warnings)
    errors = CaseErrors(is_kept=keep_errors)
    annotated, classes = _check_pairs(matched.pairs, errors)
    unannotated = sorted(set(matched.pairs) - set(annotated) - set(errors.found))
    if unannotated:
        warnings.append(
            f"{pluralize(unannotated, 'reference')} without an annotated voxel (all are 255), "
            f"left out: {list_some(unannotated)}."
        )
    errors.raise_if_none_left(matched.pairs)
    if not annotated:
        raise LabelError(f"No reference in {references} has an annotated voxel: all are 255.")
    if not classes:
        raise LabelError(
            f"Predictions in {predictions} and references in {references} are all 0: there is no "
            "class to score. Check that these are label files."
        )
    n_structures = max(n_structures or 0, len(classes))
    cases = evaluate_pairs(annotated, classes, n_structures, on_progress, errors)
    errors.raise_if_none_left(matched.pairs)
    return {
        "cases": cases,
        "summary": summarize(cases),
        "classes": classes,
        "missing": matched.missing,
        "failed": {name: str(error) for name, error in errors.found.items()},
        "warnings": warnings,
    }


def evaluate_pairs(
    pairs: Pairs,
    classes: list[int],
    n_structures: int,
    on_progress: ItemProgressCallback | None = None,
    errors: CaseErrors | None = None,
) -> dict[str, Any]:
    """Score pairs one by one, all on the same classes; see ``evaluate_case``."""
    errors = errors or CaseErrors(is_kept=False)
    cases: dict[str, Any] = {}
    for number, (name, (prediction, reference)) in enumerate(pairs.items(), start=1):
        with errors.collect(name):
            cases[name] = _evaluate_pair(prediction, reference, classes, n_structures)
        if on_progress is not None:
            on_progress(number, len(pairs), name)
    return cases


def _check_pairs(pairs: Pairs, errors: CaseErrors) -> tuple[Pairs, list[int]]:
    """Read and check all pairs; return the annotated ones and all classes in them."""
    classes: set[int] = set()
    annotated: Pairs = {}
    for name, paths in pairs.items():
        with errors.collect(name):
            prediction, reference = _read_pair(*paths)
            if (reference == UNANNOTATED).all():
                continue
            annotated[name] = paths
            classes.update(int(v) for array in (prediction, reference) for v in np.unique(array))
    return annotated, sorted(classes - {0, UNANNOTATED})


def _evaluate_pair(
    prediction: Path, reference: Path, classes: list[int], n_structures: int
) -> dict[str, Any]:
    truth = read_label(reference)
    mask = read_label(prediction, reference=truth)
    uncertainty = _read_uncertainty_map(prediction, truth)
    return evaluate_case(
        mask.array,
        truth.array,
        truth.spacing_mm,
        classes,
        uncertainty=uncertainty,
        n_classes=n_structures + 1,
    )


def _read_pair(prediction: Path, reference: Path) -> tuple[LabelArray, LabelArray]:
    """Read prediction and reference (D, H, W), check that they are masks on one grid."""
    truth = _read_mask(reference, "references")
    mask = _read_mask(prediction, "predictions", truth)
    if (mask.array == UNANNOTATED).any():
        raise LabelError(
            f"{prediction.name} contains the value 255, which means 'not annotated'; expected "
            "a class (0 to 254) in every voxel of a prediction. If 255 is the foreground, "
            "replace it by the value of the class, such as 1. If the folders are swapped, give the "
            "predictions first."
        )
    return mask.array, truth.array


def _read_mask(path: Path, kind: str, reference: Volume | None = None) -> Volume:
    """Read a mask; ``kind`` says what its folder is for."""
    try:
        mask = read_label(path, reference=reference)
    except GeometryError:
        difference = reference and grid_difference(read_volume(path, check_values=False), reference)
        if not difference:
            raise
        raise GeometryError(
            f"The prediction {path} is not on the grid of its reference: {difference}. Expected "
            "masks of the same scan; resample one to the grid of the other."
        ) from None
    except LabelError:
        found = describe_scan_values(read_volume(path, check_values=False).array)
        if found is None:
            raise
        raise _make_scan_error(path, kind, found) from None
    if found := describe_scan_texture(mask.array):
        raise _make_scan_error(path, kind, found)
    return mask


def _make_scan_error(path: Path, kind: str, found: str) -> LabelError:
    return LabelError(
        f"The {kind} in {path.parent} look like scans: {path.name} contains {found}. Expected "
        "masks with one whole number from 0 to 254 per class. Give the folder of predicted masks "
        "first, then the folder of reference masks."
    )


def _read_uncertainty_map(prediction: Path, truth: Volume) -> npt.NDArray[np.float32] | None:
    """Read and check the uncertainty map of a prediction; ``None`` if there is none."""
    name = scan_name(prediction)
    for extension in (".nii.gz", ".nii"):
        path = prediction.with_name(f"{name}_uncertainty{extension}")
        if not path.exists():
            continue
        volume = read_volume(path, check_values=False)
        difference = grid_difference(volume, truth)
        if difference is not None:
            raise GeometryError(
                f"{path.name} is not on the grid of its reference: {difference}. Predict again on "
                "the scan of the reference, or remove the map."
            )
        values = np.asarray(volume.array, np.float32)
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-3 and high <= 1.0 + 1e-3):  # also when NaN
            raise UserError(
                f"{path.name} holds values from {low:g} to {high:g}; expected an "
                "uncertainty map with values in [0, 1]. Remove it or predict again."
            )
        return values
    return None
