"""Evaluation of a folder of predictions against references with the same file names.

All pairs are read and checked before the first is scored, so that an invalid file is reported
immediately and every case is scored on the same classes. Only one pair is in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import UNANNOTATED, ItemProgressCallback, LabelArray
from napari_dycon.io.scan_detection import (
    describe_scan_texture,
    describe_scan_values,
)
from napari_dycon.engine.evaluation.segmentation_metrics import evaluate_case, summarize
from napari_dycon.errors import GeometryError, LabelError, UserError
from napari_dycon.io import is_scan, read_label, read_volume, scan_name
from napari_dycon.io.volume import Volume, grid_difference

MAP_SUFFIXES = ("_uncertainty", "_disagreement")

Pairs = dict[str, tuple[Path, Path]]  # prediction and reference by name


@dataclass(frozen=True)
class MatchedFiles:
    """Files of two folders, matched by name.

    Attributes
    ----------
    pairs : prediction and reference by name, sorted
    missing : references without a prediction
    warnings : sentences on files without a counterpart
    """

    pairs: Pairs
    missing: list[str]
    warnings: list[str]


def evaluate_folders(
    predictions: Path,
    references: Path,
    on_progress: ItemProgressCallback | None = None,
    *,
    n_structures: int | None = None,
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

    Returns
    -------
    ``"cases"``: result of ``evaluate_case`` by name; ``"summary"``: see ``summarize``;
    ``"classes"``: all values except 0 in any of the files; ``"missing"``: references without a
    prediction, not part of any mean; ``"warnings"``: sentences to show to the user

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
    annotated, classes = _check_pairs(matched.pairs)
    unannotated = sorted(set(matched.pairs) - set(annotated))
    if unannotated:
        warnings.append(
            f"{_pluralize(unannotated, 'reference')} without an annotated voxel (all are 255), "
            f"left out: {_list_some(unannotated)}."
        )
    if not annotated:
        raise LabelError(f"No reference in {references} has an annotated voxel: all are 255.")
    if not classes:
        raise LabelError(
            f"Predictions in {predictions} and references in {references} are all 0: there is no "
            "class to score. Check that these are label files."
        )
    cases = evaluate_pairs(annotated, classes, max(n_structures or 0, len(classes)), on_progress)
    return {
        "cases": cases,
        "summary": summarize(cases),
        "classes": classes,
        "missing": matched.missing,
        "warnings": warnings,
    }


def match_files(predictions: Path, references: Path) -> MatchedFiles:
    """Match predictions with references by name.

    Raises
    ------
    UserError
        A folder is missing or empty, both are the same, or no prediction has a reference.
    """
    prediction_paths = _find_label_files(predictions, "predictions")
    reference_paths = _find_label_files(references, "references")
    if predictions.samefile(references):
        raise UserError(
            f"{predictions} is given both for the predictions and for the references; expected two "
            "folders."
        )
    unmatched = sorted(set(prediction_paths) - set(reference_paths))
    missing = sorted(set(reference_paths) - set(prediction_paths))
    pairs = {
        name: (prediction_paths[name], reference_paths[name])
        for name in sorted(set(prediction_paths) & set(reference_paths))
    }
    if not pairs:
        raise UserError(
            f"No prediction in {predictions} has a reference of the same name in {references}; "
            f"found for instance {_list_some(unmatched, 1)} and "
            f"{_list_some(sorted(reference_paths), 1)}. Expected files with the same names."
        )
    warnings = []
    if _has_maps(references) and not _has_maps(predictions):
        warnings.append(
            f"{references} contains uncertainty maps, as a folder of predictions does, and "
            f"{predictions} does not. Expected the predictions first, then the references; check "
            "that the folders are not swapped."
        )
    if unmatched:  # common if only some scans have a reference mask
        warnings.append(
            f"{_pluralize(unmatched, 'prediction')} without a reference, left out: "
            f"{_list_some(unmatched)}."
        )
    if missing:
        warnings.append(
            f"{_pluralize(missing, 'reference')} without a prediction, not part of any mean: "
            f"{_list_some(missing)}."
        )
    return MatchedFiles(pairs, missing, warnings)


def evaluate_pairs(
    pairs: Pairs,
    classes: list[int],
    n_structures: int,
    on_progress: ItemProgressCallback | None = None,
) -> dict[str, Any]:
    """Score pairs one by one, all on the same classes; see ``evaluate_case``."""
    cases: dict[str, Any] = {}
    for number, (name, (prediction, reference)) in enumerate(pairs.items(), start=1):
        cases[name] = _evaluate_pair(prediction, reference, classes, n_structures)
        if on_progress is not None:
            on_progress(number, len(pairs), name)
    return cases


def _check_pairs(pairs: Pairs) -> tuple[Pairs, list[int]]:
    """Read and check all pairs; return the annotated ones and all classes in them."""
    classes: set[int] = set()
    annotated: Pairs = {}
    for name, paths in pairs.items():
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


def _has_maps(folder: Path) -> bool:
    """Check whether a folder contains maps that are written with predictions."""
    return any(
        is_scan(path) and scan_name(path).endswith(MAP_SUFFIXES) for path in folder.iterdir()
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


def _find_label_files(folder: Path, kind: str) -> dict[str, Path]:
    """Find the label files of a folder by case name."""
    if not folder.is_dir():
        raise UserError(
            f"The folder of {kind} {folder} does not exist or is not a folder. Check its name."
        )
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or not is_scan(path):
            continue
        name = scan_name(path)
        if name.endswith(MAP_SUFFIXES):
            continue
        if name in paths:
            raise UserError(
                f"{folder} holds both {paths[name].name} and {path.name}: one file per case is "
                "expected. Remove one of them."
            )
        paths[name] = path
    if not paths:
        raise UserError(
            f"The folder of {kind} {folder} holds no scan: files named NAME.nii.gz are expected."
        )
    return paths


def _pluralize(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"


def _list_some(names: list[str], max_items: int = 5) -> str:
    """List the first few names and the number of further ones."""
    rest = f" and {len(names) - max_items} more" if len(names) > max_items else ""
    return ", ".join(names[:max_items]) + rest
