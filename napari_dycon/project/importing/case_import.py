"""Import of scans into a project: duplicates are found, scans read and checked, cases added.

All scans are checked before anything is written. A scan that is already in the project is not added
again, and one that cannot be used may be skipped.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from napari_dycon import io
from napari_dycon.core.atomic import ensure_dir
from napari_dycon.core.types import Array, ItemProgressCallback
from napari_dycon.core.wording import format_count
from napari_dycon.errors import BusyError, LabelError, ProjectError, UserError
from napari_dycon.io.scan_detection import MIN_VALUES, describe_mask_values, describe_scan_texture
from napari_dycon.io.volume import Volume
from napari_dycon.project import manifest
from napari_dycon.project.case_ids import unique_case_id
from napari_dycon.project.case_images import channel_paths
from napari_dycon.project.editing.removed_cases import list_removed_cases
from napari_dycon.project.imported_labels import get_import_record_path, record_import
from napari_dycon.project.importing.discovery import Scan, read_scan
from napari_dycon.project.label_rules import (
    check_values,
    compute_label_status,
    find_values,
    remap_values,
)
from napari_dycon.project.label_store import LABEL_SUFFIX, label_file_path
from napari_dycon.project.models import Case, ClassInfo


@dataclass(frozen=True)
class SkippedScan:
    """A scan that was skipped, with the reason and its label."""

    scan: Scan
    error: UserError
    label: Path | None = None
    value_map: Mapping[int, int] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """Message for the user."""
        return f"{self.scan.name} was left out: {self.error}"

    def to_dict(self) -> dict[str, str]:
        """Return JSON values for programs."""
        return {"case": self.scan.name, "reason": str(self.error)}


OnSkip = Callable[[SkippedScan], None]


def is_scan_specific(error: UserError) -> bool:
    """Check whether an error concerns only the current scan, so that others can continue."""
    return not isinstance(error, (ProjectError, BusyError))


@dataclass(frozen=True)
class TargetProject:
    """The project that scans are imported into: its folder and manifest."""

    folder: Path
    channels: Sequence[str]
    classes: Sequence[ClassInfo]
    cases: Sequence[Case]


@dataclass(frozen=True)
class NewCase:
    """A case to add, the grid of its scan, and its label, uint8 ``(D, H, W)``, if any."""

    case: Case
    grid: Volume
    label: Array | None


def load_new_cases(
    target: TargetProject,
    scans: Sequence[Scan],
    *,
    labels: Mapping[str, Path] | None = None,
    value_map: Mapping[int, int] | None = None,
    resample: bool = False,
    progress: ItemProgressCallback | None = None,
    on_note: Callable[[str], None] | None = None,
    on_skip: OnSkip | None = None,
) -> list[NewCase]:
    """Read scans as cases of a project; see ``Project.add_cases`` for the parameters.

    Raises
    ------
    UserError
        A scan cannot be used and there is no ``on_skip``, none can be used, or all are already in
        the project. A label that does not fit its scan always raises, so that it is not lost
        silently.
    """
    known = _map_identities(target.folder, target.cases)
    removed_cases = _list_removed(target)
    removed_ids = _map_identities(target.folder, removed_cases)
    taken_ids = {case.id.lower() for case in (*target.cases, *removed_cases)}
    taken_ids |= _existing_labels(target.folder)
    new_cases: list[NewCase] = []
    skipped: list[SkippedScan] = []
    duplicates: list[str] = []
    for number, scan in enumerate(scans, start=1):
        key = _identity_key(scan.images)
        case_id = unique_case_id(scan.name, taken_ids)
        label = (labels or {}).get(scan.name)
        if key in known:
            duplicates.append(f"{scan.name} was left out: it is already case {known[key]}.")
            if on_note:
                on_note(duplicates[-1])
        else:
            try:
                _check_channels(scan, target.channels)
                volume = read_scan(scan.images, case_id, resample=resample)
            except UserError as error:
                if on_skip is None or not is_scan_specific(error):
                    raise
                skipped.append(SkippedScan(scan, error, label, value_map or {}))
            else:
                case = Case(
                    id=case_id,
                    images=[_relative_path(path, target.folder) for path in scan.images],
                    resampled=resample,
                )
                array = None
                if label is not None:
                    array = _read_label(label, volume, value_map or {}, target.classes)
                    case = case.model_copy(update={"status": compute_label_status(array)})
                new_cases.append(NewCase(case, volume.grid_only(), array))
                known[key] = case_id
                taken_ids.add(case_id.lower())
                if on_note:
                    removed = _describe_removed(scan, removed_ids.get(key))
                    # One scan of a folder of masks is enough.
                    masks = _describe_mask(scan, volume) if len(new_cases) == 1 else []
                    for text in (*volume.notes, *removed, *masks):
                        on_note(text)
        if progress:
            progress(number, len(scans), case_id)
    if not new_cases and skipped:
        raise skipped[0].error
    if not new_cases and duplicates:
        more = f" So were {len(duplicates) - 1} more." if len(duplicates) > 1 else ""
        raise UserError(
            f"Nothing was added. {duplicates[0]}{more} Choose scans that are not in the "
            "project yet."
        )
    if on_skip:
        for one in skipped:
            on_skip(one)
    return new_cases


@contextlib.contextmanager
def commit_cases(
    folder: Path, new_cases: Sequence[NewCase]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield an edit of ``project.json`` that adds new cases and writes their labels, locked.

    If the edit fails, the labels are removed again.
    """
    written: list[Path] = []

    def add_to_manifest(values: dict[str, Any]) -> None:
        # Another session may have added a case of this name in the meantime, whose label must not
        # be replaced.
        there = {case["id"].lower() for case in values["cases"]}
        if twice := [new.case.id for new in new_cases if new.case.id.lower() in there]:
            raise BusyError(
                f"Another session added {twice[0]} at the same time. Nothing was added here; "
                "add the scans again."
            )
        ensure_dir(folder / "labels", existing_root=folder)
        for new in new_cases:
            if new.label is None:
                continue
            path = label_file_path(folder, new.case.id)
            if path.exists():
                raise BusyError(
                    f"A label {path.name} was created at the same time. Nothing was added here; "
                    "add the scans again."
                )
            written.append(record_import(folder, new.case.id, new.label))
            io.write_mask(new.label, reference=new.grid, path=path)
            written.append(path)
        values["cases"].extend(new.case.model_dump() for new in new_cases)

    try:
        yield add_to_manifest
    except BaseException:
        with contextlib.suppress(ProjectError):  # the error may have occurred after writing
            there = {
                path(folder, case.id)
                for case in manifest.read(folder).cases
                for path in (label_file_path, get_import_record_path)
            }
            for path in written:
                if path not in there:
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)
        raise


def _list_removed(target: TargetProject) -> list[Case]:
    """List the cases that were removed from a project."""
    removed_cases = list_removed_cases(target.folder, {case.id for case in target.cases})
    return [removed.case for removed in removed_cases]


def _map_identities(folder: Path, cases: Sequence[Case]) -> dict[tuple[str, ...], str]:
    """Map the identity of each scan to the id of its case."""
    return {_identity_key(channel_paths(folder, case.images)): case.id for case in cases}


def _describe_removed(scan: Scan, removed_id: str | None) -> list[str]:
    """Describe how to get the label of a scan back that was removed from the project."""
    if removed_id is None:
        return []
    return [
        f"{scan.name} was removed from this project earlier. Its label was kept: to get it back, "
        f"remove the new case and restore {removed_id} with Add… > Restore removed case…"
    ]


def _describe_mask(scan: Scan, volume: Volume) -> list[str]:
    """Describe a scan that looks like a mask."""
    found = describe_mask_values(volume.array)
    if found is None:
        return []
    return [f"{scan.name} has {found}, like a mask. Check that this is the folder of the scans."]


def _existing_labels(folder: Path) -> set[str]:
    """Return case ids of all label files, also without a case: new cases must not reuse them."""
    try:
        names = [unicodedata.normalize("NFC", name) for name in os.listdir(folder / "labels")]
    except OSError:
        return set()
    return {n[: -len(LABEL_SUFFIX)].lower() for n in names if n.lower().endswith(LABEL_SUFFIX)}


def _identity_key(images: Sequence[Path]) -> tuple[str, ...]:
    """Return a key that is equal for the same scan reached by different paths."""
    key = []
    for path in images:
        file = io.get_scan_file(path)
        channel = path.name[len(file.name) :]  # of a 4D file
        # Resolving links on a network share would connect to its machine.
        is_network_path = PureWindowsPath(file).drive.startswith("\\\\") and os.name == "nt"
        real = os.path.abspath(file) if is_network_path else str(file.resolve())
        key.append(os.path.normcase(real) + channel)
    return tuple(key)


def _relative_path(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive on Windows
        return path.as_posix()


def _check_channels(scan: Scan, channels: Sequence[str]) -> None:
    if len(scan.images) != len(channels):
        raise UserError(
            f"{scan.name} has {format_count(len(scan.images), 'channel')}, but the project has "
            f"{len(channels)}: {', '.join(channels)}. Expected a scan with one image per channel."
        )


def _read_label(
    file: Path, scan: Volume, value_map: Mapping[int, int], classes: Sequence[ClassInfo]
) -> Array:
    values = io.read_label(file, reference=scan).array
    # Parcellations may have over a hundred structures, but these consist of more than one voxel.
    if len(find_values(values)) >= MIN_VALUES and (found := describe_scan_texture(values)):
        raise LabelError(
            f"{Path(file).name} looks like a scan instead of a label: it contains {found}. "
            "Expected one whole number for each structure. Check the folder of labels."
        )
    array = remap_values(values, value_map)
    check_values(array, classes, f"Label {Path(file).name}")
    return array
