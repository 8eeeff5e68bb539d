"""Cases removed from a project: their labels and predictions are kept in ``removed/``.

Removing a case takes its entry out of ``project.json`` and moves its files to
``removed/cases/ID/``, where they have the same relative paths as in the project. Nothing is
deleted, and the scan is not touched. The record of the case is written before the project changes
and its files are moved afterwards, so that after a crash at any moment the label is in ``labels/``
or in ``removed/``, and restoring the case finds it in both. The id of a removed case is not used
for another scan.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_dycon.core.atomic import ensure_dir, move_file, write_json
from napari_dycon.core.containment import ensure_links_within
from napari_dycon.core.untrusted import parse_integer, read_json
from napari_dycon.errors import DyconError, ProjectError, UserError
from napari_dycon.project.case_ids import is_case_id, normalize_name
from napari_dycon.project.editing.record_folders import MAX_RECORDS, create_record_folder
from napari_dycon.project.label_store import LABEL_SUFFIX, LabelStore, label_file_path
from napari_dycon.project.manifest import ManifestStore
from napari_dycon.project.models import Case

FOLDER = Path("removed", "cases")
RECORD_FILE = "case.json"
MAX_RECORD_BYTES = 2**20
PREDICTION_SUFFIXES = (LABEL_SUFFIX, "_uncertainty.nii.gz", "_disagreement.nii.gz", ".json")


@dataclass(frozen=True)
class RemovedCase:
    """A removed case, its position in the list of cases, and the folder of its files."""

    case: Case
    index: int
    folder: Path
    removed_at: float  # seconds since the epoch


def list_removed_cases(folder: Path, case_ids: set[str]) -> list[RemovedCase]:
    """List the removed cases of the project in ``folder``, the last removed one first.

    Parameters
    ----------
    folder : folder of the project
    case_ids : ids of its cases; a record of one of them is left from an interrupted operation
    """
    newest: dict[str, RemovedCase] = {}
    for record in sorted(_read_records(folder), key=lambda one: one.removed_at, reverse=True):
        if record.case.id not in case_ids:
            newest.setdefault(record.case.id, record)
    return list(newest.values())


def find_removed_labels(folder: Path) -> list[Path]:
    """List the labels of the removed cases of the project in ``folder``."""
    paths = [label_file_path(record.folder, record.case.id) for record in _read_records(folder)]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


class RemovedCases:
    """Removal and restoring of cases of one project."""

    def __init__(self, manifest: ManifestStore, labels: LabelStore) -> None:
        self._manifest = manifest
        self._labels = labels

    def list(self) -> Sequence[RemovedCase]:
        """List the removed cases, the last removed one first."""
        content = self._manifest.content
        return list_removed_cases(self._manifest.folder, set(content.cases_by_id))

    def remove(self, case_id: str) -> RemovedCase:
        """Remove a case; its label and predictions are moved to ``removed/``.

        A file that cannot be moved stays where it is and is found again by ``restore``.
        """
        root = self._manifest.folder
        with self._labels.lock():
            self._manifest.reload()
            case = self._manifest.get_case(case_id)
            index = self._manifest.content.cases.index(case)
            record = RemovedCase(
                case,
                index,
                create_record_folder(
                    self._manifest.folder, self._manifest.folder / FOLDER, case_id
                ),
                time.time(),
            )
            write_json(
                record.folder / RECORD_FILE,
                {
                    "case": case.model_dump(mode="json"),
                    "index": index,
                    "removed_at": round(record.removed_at, 3),
                },
            )

            def leave_out(values: dict[str, Any]) -> None:
                values["cases"] = [item for item in values["cases"] if item["id"] != case_id]

            try:
                self._manifest.edit(leave_out)
            except BaseException:
                with contextlib.suppress(OSError):
                    (record.folder / RECORD_FILE).unlink()
                    record.folder.rmdir()
                raise
            for path in list(self._find_files(root, case_id)):
                _move(path, record.folder / path.relative_to(root))
        return record

    def restore(self, case_id: str) -> Case:
        """Add a removed case again, with its label and predictions.

        Files that exist in the project are not replaced; those in ``removed/`` are kept then.
        """
        self._manifest.require_writable()
        root = self._manifest.folder
        with self._labels.lock():
            self._manifest.reload()
            record = next((item for item in self.list() if item.case.id == case_id), None)
            if record is None:
                raise UserError(f"There is no removed case '{case_id}' in this project.")
            for other in self._manifest.content.cases:
                if other.images == record.case.images:
                    raise UserError(
                        f"The scan of {case_id} was added again as {other.display_name}. Remove "
                        "that case first, then restore this one."
                    )
            records = [item for item in _read_records(root) if item.case.id == case_id]
            for item in sorted(records, key=lambda one: one.removed_at, reverse=True):
                for path in list(self._find_files(item.folder, case_id)):
                    _move(path, root / path.relative_to(item.folder))

            def add(values: dict[str, Any]) -> None:
                if any(
                    normalize_name(item["id"]) == normalize_name(case_id)
                    for item in values["cases"]
                ):
                    raise UserError(f"There is already a case {case_id} in this project.")
                values["cases"].insert(record.index, record.case.model_dump())

            self._manifest.edit(add)
            for item in records:
                _remove_empty_record(item.folder)
        return self._manifest.get_case(case_id)

    def _find_files(self, folder: Path, case_id: str) -> Iterator[Path]:
        """Find the label and predictions of a case, without links."""
        root = self._manifest.folder
        names = {f"{case_id}{suffix}" for suffix in PREDICTION_SUFFIXES}
        # The map of one case can have the name of the mask of another one.
        names -= {
            f"{other.id}{LABEL_SUFFIX}"
            for other in self._manifest.content.cases
            if other.id != case_id
        }
        candidates = [label_file_path(folder, case_id)]
        with contextlib.suppress(OSError):
            for run in sorted((folder / "predictions").iterdir()):
                if is_case_id(run.name) and run.is_dir():
                    subfolders = (path for path in sorted(run.iterdir()) if path.is_dir())
                    candidates += [
                        place / name for place in (run, *subfolders) for name in sorted(names)
                    ]
        for path in candidates:
            with contextlib.suppress(ProjectError):  # a link out of the project is left alone
                if path.is_file() and not path.is_symlink() and ensure_links_within(root, path):
                    yield path


def _read_records(folder: Path) -> list[RemovedCase]:
    """Read all valid records of a project; anything else in the folder is ignored."""
    records = []
    try:
        parent = ensure_links_within(folder, folder / FOLDER)
        names = sorted(os.listdir(parent))[:MAX_RECORDS]
    except (OSError, ProjectError):
        return []
    for name in names:
        try:
            path = ensure_links_within(folder, parent / name)
            values = read_json(ensure_links_within(folder, path / RECORD_FILE), MAX_RECORD_BYTES)
            case = Case.model_validate(values["case"])
            index = parse_integer(values["index"], 0, 10**9)
            removed_at = values["removed_at"]
        except (OSError, ValueError, KeyError, TypeError, ValidationError, DyconError):
            continue
        if index is not None and isinstance(removed_at, (int, float)):
            records.append(RemovedCase(case, index, path, float(removed_at)))
    return records


def _move(source: Path, target: Path) -> None:
    """Move a file unless the target exists; a file that cannot be moved stays where it is."""
    with contextlib.suppress(DyconError, OSError):
        if not os.path.lexists(target):
            ensure_dir(target.parent)
            move_file(source, target)


def _remove_empty_record(folder: Path) -> None:
    """Remove a record and its empty folders; with files that were not moved it is kept."""
    folders = [Path(root) for root, _, _ in os.walk(folder, topdown=False)]
    with contextlib.suppress(OSError):
        if any(files for root, _, files in os.walk(folder) if Path(root) != folder):
            return
        (folder / RECORD_FILE).unlink(missing_ok=True)
        for path in folders:
            path.rmdir()
