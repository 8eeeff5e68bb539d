"""Files of two folders, matched by name, and the errors of single cases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_dycon.errors import DyconError, UserError
from napari_dycon.io import is_scan, scan_name

MAP_SUFFIXES = ("_uncertainty", "_disagreement")

Pairs = dict[str, tuple[Path, Path]]  # prediction and reference by name


class CaseErrors:
    """Errors of single cases.

    Parameters
    ----------
    is_kept : whether they are kept, so that the other cases continue, instead of raised

    Attributes
    ----------
    found : by name of the case
    """

    def __init__(self, *, is_kept: bool) -> None:
        self._is_kept = is_kept
        self.found: dict[str, DyconError] = {}

    @contextlib.contextmanager
    def collect(self, name: str) -> Iterator[None]:
        """Keep an error in the files of this case."""
        try:
            yield
        except DyconError as error:
            if not self._is_kept:
                raise
            self.found[name] = error.with_traceback(None)  # which would keep the masks in memory

    def raise_if_none_left(self, pairs: Pairs) -> None:
        """Raise the first error if no case is left."""
        if pairs and len(self.found) == len(pairs):
            raise next(iter(self.found.values()))


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
            f"found for instance {list_some(unmatched, 1)} and "
            f"{list_some(sorted(reference_paths), 1)}. Expected files with the same names."
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
            f"{pluralize(unmatched, 'prediction')} without a reference, left out: "
            f"{list_some(unmatched)}."
        )
    if missing:
        warnings.append(
            f"{pluralize(missing, 'reference')} without a prediction, not part of any mean: "
            f"{list_some(missing)}."
        )
    return MatchedFiles(pairs, missing, warnings)


def _has_maps(folder: Path) -> bool:
    """Check whether a folder contains maps that are written with predictions."""
    return any(
        is_scan(path) and scan_name(path).endswith(MAP_SUFFIXES) for path in folder.iterdir()
    )


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


def pluralize(names: list[str], noun: str) -> str:
    """Return the number of names with their noun."""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"


def list_some(names: list[str], max_items: int = 5) -> str:
    """List the first few names and the number of further ones."""
    rest = f" and {len(names) - max_items} more" if len(names) > max_items else ""
    return ", ".join(names[:max_items]) + rest
