"""Scans on their way into a project: told apart from those there, read, checked, and entered.

All are checked before anything is written. A scan that a case refers to already makes no second
case, and one that cannot be used may be left out while the others go on.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy.typing as npt

from napari_dycon import io
from napari_dycon.core.atomic import make_folder
from napari_dycon.errors import BusyError, ProjectError, UserError
from napari_dycon.io.volume import Volume
from napari_dycon.project import manifest
from napari_dycon.project.case_ids import free_id
from napari_dycon.project.importing.discovery import Scan, read_scan
from napari_dycon.project.label_rules import check_values, label_status, rename
from napari_dycon.project.models import Case, ClassInfo

Array = npt.NDArray[Any]
Progress = Callable[[int, int, str], None]
LABEL = ".nii.gz"  # how the names of label files end


@dataclass(frozen=True)
class Skipped:
    """A scan that was left out, why, and what came with it."""

    scan: Scan
    error: UserError
    label: Path | None = None
    renamed: Mapping[int, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What a person is told."""
        return f"{self.scan.name} was left out: {self.error}"

    def to_dict(self) -> dict[str, str]:
        """Return what a program is told."""
        return {"case": self.scan.name, "reason": str(self.error)}


Skip = Callable[[Skipped], None]


def is_of_one_scan(error: UserError) -> bool:
    """Whether an error concerns the scan at hand alone, so that others may go on without it."""
    return not isinstance(error, (ProjectError, BusyError))


@dataclass(frozen=True)
class Place:
    """The project that scans are read for: its folder, and what it holds."""

    folder: Path
    channels: Sequence[str]
    classes: Sequence[ClassInfo]
    cases: Sequence[Case]


@dataclass(frozen=True)
class NewCase:
    """A case to be, the grid of its scan, and its label, uint8 ``(D, H, W)``, if it has one."""

    case: Case
    grid: Volume
    label: Array | None


def read_cases(
    place: Place,
    scans: Sequence[Scan],
    *,
    labels: Mapping[str, Path] | None = None,
    renamed: Mapping[int, int] | None = None,
    resample: bool = False,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    skip: Skip | None = None,
) -> list[NewCase]:
    """Read scans as cases of a project; see ``Project.add_cases`` for the parameters.

    Raises
    ------
    UserError
        A scan cannot be used and there is no ``skip``, none can be used, or all are in the project.
        A label that does not fit is raised in any case: it must not be lost silently.
    """
    known = {_key(channel_paths(place.folder, case.images)): case.id for case in place.cases}
    taken = {case.id.lower() for case in place.cases} | _labels_there(place.folder)
    found: list[NewCase] = []
    skipped: list[Skipped] = []
    there: list[str] = []
    for number, scan in enumerate(scans, start=1):
        key = _key(scan.images)
        case_id = free_id(scan.name, taken)
        label = (labels or {}).get(scan.name)
        if key in known:
            there.append(f"{scan.name} was left out: it is case {known[key]} already.")
            if note:
                note(there[-1])
        else:
            try:
                _check_channels(scan, place.channels)
                volume = read_scan(scan.images, case_id, resample=resample)
            except UserError as error:
                if skip is None or not is_of_one_scan(error):
                    raise
                skipped.append(Skipped(scan, error, label, renamed or {}))
            else:
                case = Case(
                    id=case_id,
                    images=[_reference(path, place.folder) for path in scan.images],
                    resampled=resample,
                )
                array = None
                if label is not None:
                    array = _label(label, volume, renamed or {}, place.classes)
                    case = case.model_copy(update={"status": label_status(array)})
                found.append(NewCase(case, volume.without_voxels(), array))
                known[key] = case_id
                taken.add(case_id.lower())
                if note:
                    for text in volume.notes:
                        note(text)
        if progress:
            progress(number, len(scans), case_id)
    if not found and skipped:
        raise skipped[0].error
    if not found and there:
        more = f" So were {len(there) - 1} more." if len(there) > 1 else ""
        raise UserError(
            f"Nothing was added. {there[0]}{more} Choose scans that the project does not hold yet."
        )
    if skip:
        for one in skipped:
            skip(one)
    return found


@contextlib.contextmanager
def entering(folder: Path, found: Sequence[NewCase]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give what enters new cases into ``project.json`` and writes their labels, under its lock.

    When that fails the labels are taken away again.
    """
    written: list[Path] = []

    def enter(values: dict[str, Any]) -> None:
        # Another window may have added a case of this name in the meantime, and its label must
        # not be replaced.
        there = {case["id"].lower() for case in values["cases"]}
        if twice := [new.case.id for new in found if new.case.id.lower() in there]:
            raise BusyError(
                f"Another window added {twice[0]} at the same moment. Nothing was added here; "
                "add the scans again."
            )
        make_folder(folder / "labels", within=folder)
        for new in found:
            if new.label is None:
                continue
            path = label_file(folder, new.case.id)
            if path.exists():
                raise BusyError(
                    f"A label {path.name} appeared at the same moment. Nothing was added here; "
                    "add the scans again."
                )
            io.write_mask(new.label, like=new.grid, path=path)
            written.append(path)
        values["cases"].extend(new.case.model_dump() for new in found)

    try:
        yield enter
    except BaseException:
        with contextlib.suppress(ProjectError):  # what went wrong may have come after the writing
            there = {label_file(folder, case.id) for case in manifest.read(folder).cases}
            for path in written:
                if path not in there:
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)
        raise


def label_file(folder: Path, case_id: str) -> Path:
    """Where the label of a case lies in a project's folder."""
    return folder / "labels" / f"{case_id}{LABEL}"


def channel_paths(folder: Path, images: Sequence[str]) -> list[Path]:
    """Where the channels of a case lie, by what ``project.json`` in ``folder`` says of them."""
    return [Path(os.path.normpath(folder / image)) for image in images]


def _labels_there(folder: Path) -> set[str]:
    """Names of label files, also those of no case: a new case must neither take nor replace one."""
    try:
        names = [unicodedata.normalize("NFC", name) for name in os.listdir(folder / "labels")]
    except OSError:
        return set()
    return {n[: -len(LABEL)].lower() for n in names if n.lower().endswith(LABEL)}


def _key(images: Sequence[Path]) -> tuple[str, ...]:
    """The same for the same scan, by whatever way and name it is reached."""
    key = []
    for path in images:
        file = io.file_of(path)
        channel = path.name[len(file.name) :]  # of a 4D file
        # To follow links on a share would call the machine that it is on.
        shared = PureWindowsPath(file).drive.startswith("\\\\") and os.name == "nt"
        real = os.path.abspath(file) if shared else str(file.resolve())
        key.append(os.path.normcase(real) + channel)
    return tuple(key)


def _reference(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive on Windows
        return path.as_posix()


def _check_channels(scan: Scan, channels: Sequence[str]) -> None:
    if len(scan.images) != len(channels):
        raise UserError(
            f"{scan.name} has {len(scan.images)} channel(s), but the project has {len(channels)}: "
            f"{', '.join(channels)}. Expected a scan with one image for each of them."
        )


def _label(
    file: Path, scan: Volume, renamed: Mapping[int, int], classes: Sequence[ClassInfo]
) -> Array:
    array = rename(io.read_label(file, like=scan).array, renamed)
    check_values(array, classes, f"Label {Path(file).name}")
    return array
