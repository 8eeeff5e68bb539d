"""Structures to segment: adding, renaming and deleting them.

Deleting a structure makes its voxels unannotated in all labels: they may belong to another
structure, and training ignores them until they are annotated again. Labels that contain it are
copied to ``removed/structures/`` first, and ``project.json`` is changed last: after a crash in
between, the structure still exists, and deleting it again completes the operation. The value of a
deleted structure is not used again, because old predictions and weights contain it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_dycon import io
from napari_dycon.core.atomic import ensure_dir, write_bytes, write_json
from napari_dycon.core.containment import ensure_links_within
from napari_dycon.core.types import UNANNOTATED, ItemProgressCallback
from napari_dycon.errors import ProjectError, UserError
from napari_dycon.project.case_ids import normalize_name
from napari_dycon.project.editing.deleted_structures import (
    FOLDER,
    RECORD_FILE,
    read_deleted_values,
)
from napari_dycon.project.editing.record_folders import create_record_folder
from napari_dycon.project.editing.removed_cases import find_removed_labels
from napari_dycon.project.label_rules import compute_label_status, get_next_status
from napari_dycon.project.label_store import LABEL_SUFFIX, LabelStore
from napari_dycon.project.manifest import ManifestStore
from napari_dycon.project.models import PALETTE, ClassInfo, Status, get_palette_color


@dataclass(frozen=True)
class DeletedStructure:
    """A deleted structure, and the folder with copies of the labels that contained it."""

    info: ClassInfo
    folder: Path
    n_labels: int


class StructureStore:
    """Changes to the structures of one project."""

    def __init__(self, manifest: ManifestStore, labels: LabelStore) -> None:
        self._manifest = manifest
        self._labels = labels

    def add(self, name: str, color: str | None = None) -> ClassInfo:
        """Add a structure with the next value that was never used.

        Raises
        ------
        UserError
            Another structure has this name.
        """

        def change(values: dict[str, Any]) -> None:
            _check_name(name.strip(), values["classes"])
            used = {item["value"] for item in values["classes"]}
            used |= read_deleted_values(self._manifest.folder)
            value = next((v for v in range(1, UNANNOTATED) if v not in used), None)
            if value is None:
                raise ProjectError("A project holds at most 254 structures.")
            values["classes"].append(
                {
                    "value": value,
                    "name": name.strip(),
                    "color": color or _choose_color(values["classes"]),
                }
            )

        self._manifest.edit(change)
        return self._manifest.content.classes[-1]

    def update(self, value: int, *, name: str | None = None, color: str | None = None) -> None:
        """Rename or recolor a structure."""
        changes = {k: v for k, v in (("name", name), ("color", color)) if v is not None}

        def change(values: dict[str, Any]) -> None:
            if name is not None:
                _check_name(name, [item for item in values["classes"] if item["value"] != value])
            for item in values["classes"]:
                if item["value"] == value:
                    item.update(changes)

        self._manifest.edit(change)

    def count_labels(self, value: int, progress: ItemProgressCallback | None = None) -> int:
        """Count the labels that contain a structure; all of them are read."""
        files = self._list_label_files()
        count = 0
        for number, (name, path) in enumerate(files, start=1):
            count += bool((io.read_label(path).array == value).any())
            if progress:
                progress(number, len(files), name)
        return count

    def delete(self, value: int, progress: ItemProgressCallback | None = None) -> DeletedStructure:
        """Delete a structure; its voxels become unannotated, and the labels are copied first.

        Raises
        ------
        UserError
            It is the only structure, or it does not exist.
        """
        self._manifest.require_writable()
        with self._labels.lock():
            self._manifest.reload()
            info = next((c for c in self._manifest.content.classes if c.value == value), None)
            if info is None:
                raise UserError("This structure was already deleted.")
            if len(self._manifest.content.classes) == 1:
                raise UserError("A project needs at least one structure. Add another one first.")
            files = self._list_label_files()
            affected = [name for name, path in files if _contains(path, value)]
            folder = self._make_folder(info)
            for name, path in files:
                if name in affected:
                    copy = folder / "labels" / path.name
                    ensure_dir(copy.parent)
                    write_bytes(copy, path.read_bytes())
            write_json(
                folder / RECORD_FILE,
                {"structure": info.model_dump(), "removed_at": round(time.time(), 3)},
            )
            label_status: dict[str, Status] = {}
            for number, (name, path) in enumerate(files, start=1):
                label_status[name] = _clear_value(path, value)
                if progress:
                    progress(number, len(files), name)
            self._manifest.edit(lambda values: _leave_out(values, value, label_status))
        return DeletedStructure(info, folder, len(affected))

    def _list_label_files(self) -> list[tuple[str, Path]]:
        """List the names and paths of all labels, also those of removed cases."""
        files = []
        for case in self._manifest.content.cases:
            path = self._labels.path(case.id)
            if path.exists():
                files.append((case.id, path))
        root = self._manifest.folder
        removed = [ensure_links_within(root, path) for path in find_removed_labels(root)]
        # The slash keeps these names apart from ids of cases.
        return files + [(f"removed/{path.name[: -len(LABEL_SUFFIX)]}", path) for path in removed]

    def _make_folder(self, info: ClassInfo) -> Path:
        root = self._manifest.folder
        name = re.sub(r"[^\w-]+", "_", info.name)[:40].strip("_")
        record_name = f"{info.value:03d}-{name or 'structure'}"
        return create_record_folder(root, root / FOLDER, record_name)


def describe_structure_error(name: str, others: list[ClassInfo]) -> str:
    """Describe why a structure cannot have a name; empty if it can."""
    if not name.strip():
        return "Enter a name."
    for other in others:
        if normalize_name(other.name) == normalize_name(name.strip()):
            return f'There is already a structure called "{other.name}".'
    return ""


def _choose_color(classes: list[dict[str, Any]]) -> str:
    """Choose a color of the palette that no structure has, if there is one."""
    used = {item["color"].lower() for item in classes}
    unused = (color for color in PALETTE if color not in used)
    return next(unused, get_palette_color(len(classes)))


def _check_name(name: str, others: list[dict[str, Any]]) -> None:
    if name:  # an empty one is rejected by the model
        infos = [ClassInfo.model_validate(item) for item in others]
        if error := describe_structure_error(name, infos):
            raise UserError(error)


def _contains(path: Path, value: int) -> bool:
    return bool((io.read_label(path).array == value).any())


def _clear_value(path: Path, value: int) -> Status:
    """Make the voxels of a structure unannotated in a label; returns the label's status."""
    label = io.read_label(path)
    is_structure = label.array == value
    array = np.where(is_structure, np.uint8(UNANNOTATED), label.array)
    if is_structure.any():
        io.write_mask(array, reference=label, path=path)
    return compute_label_status(array)


def _leave_out(values: dict[str, Any], value: int, label_status: dict[str, Status]) -> None:
    """Remove a structure from the values of ``project.json`` and update the status of cases."""
    values["classes"] = [item for item in values["classes"] if item["value"] != value]
    for item in values["cases"]:
        if item["id"] in label_status:
            current = Status(item["status"])
            item["status"] = get_next_status(current, label_status[item["id"]])
