"""Scans of a folder, and a scan of one or several channels as one volume."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.errors import GeometryError, UserError
from napari_dycon.project import formats
from napari_dycon.project.formats import dicom
from napari_dycon.project.volume import Volume, same_grid

_NUMBERED = re.compile(r"^(.+)_(\d{4})$")  # nnU-Net's channels


@dataclass(frozen=True)
class Scan:
    """A scan that was found: its name, and one path a channel (see ``formats.read_volume``)."""

    name: str
    images: tuple[Path, ...]


def scans_in(folder: Path, what: str) -> list[Scan]:
    """Scans of a folder, sorted by name; an error when there are none.

    Files count by their names; channels in nnU-Net's way, ``NAME_0000``, ``NAME_0001``, ... belong
    together. In a folder without such files DICOM series are looked for, also in its subfolders,
    which name them.
    """
    _check_folder(folder, what)
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file() and formats.is_scan(p))
        if files:
            found = _by_number(files) or [Scan(formats.scan_name(p), (p,)) for p in files]
        else:
            found = _series_in(folder)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read: {error.strerror}.") from None
    if not found:
        raise UserError(
            f"The folder {folder} (for the {what}) holds no scans; expected "
            "NIfTI files (.nii or .nii.gz), NRRD, MetaImage, or DICOM series."
        )
    found.sort(key=lambda scan: scan.name)
    for one, other in itertools.pairwise(found):
        if one.name == other.name:
            raise UserError(
                f"{folder} holds both {one.images[0].name} and {other.images[0].name}; expected "
                "one file of a name. Move one of them away."
            )
    return found


def patients_in(folder: Path, channels: Sequence[str]) -> list[Scan]:
    """One scan a subfolder, with the file or DICOM series of each channel by name.

    Parameters
    ----------
    channels : words, such as ``t1`` and ``flair``, found in file names or series' descriptions
    """
    _check_folder(folder, "images")
    found = []
    for patient in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."):
        files = sorted(p for p in patient.rglob("*") if p.is_file() and formats.is_scan(p))
        named = [(formats.scan_name(p), p) for p in files]
        if not named:
            named = [(s.description, s.path) for s in dicom.find_series(patient)]
        if named:
            images = tuple(_of_channel(named, name, patient.name) for name in channels)
            found.append(Scan(patient.name, images))
    if not found:
        raise UserError(
            f"{folder} has no subfolders with scans; expected one folder a patient, with a file or "
            f"series for each of: {', '.join(channels)}."
        )
    return found


def read_scan(images: Sequence[Path], name: str, *, resample: bool = False) -> Volume:
    """Read all channels of a scan.

    Channels on other grids than the first are interpolated to its grid, which a note tells.

    Parameters
    ----------
    images : one path a channel
    name : of the scan, to tell a person
    resample : see ``formats.read_volume``

    Returns
    -------
    ``(D, H, W)``, or ``(C, D, H, W)`` float32 of several channels.
    """
    volumes = [formats.read_volume(path, resample=resample) for path in images]
    first = volumes[0]
    if len(volumes) == 1:
        return first
    notes = [note for volume in volumes for note in volume.notes]
    arrays = [first.array.astype(np.float32)]
    for number, volume in enumerate(volumes[1:], start=2):
        if difference := same_grid(volume, first):
            notes.append(
                f"Channel {number} of {name} was resampled to the grid of the first: {difference}."
            )
            arrays.append(_on_grid(volume, first, f"Channel {number} of {name}"))
        else:
            arrays.append(volume.array.astype(np.float32))
    return Volume(np.stack(arrays), first.affine, first.source, tuple(notes))


def _on_grid(volume: Volume, first: Volume, what: str) -> npt.NDArray[np.float32]:
    """Interpolate a volume linearly; what it does not cover has its lowest value."""
    way: npt.NDArray[np.float64] = np.linalg.inv(volume.affine) @ first.affine
    corners = way @ (
        np.array([[*c, 1] for c in np.ndindex(2, 2, 2)]).T * np.array([[*first.shape, 1]]).T
    )
    low, high = corners[:3].min(axis=1), corners[:3].max(axis=1)
    if np.any(high < 0) or np.any(low > np.array(volume.shape) - 1):
        raise GeometryError(
            f"{what} does not overlap with the first channel at all. Expected scans of the same "
            "place; are they of the same patient and session?"
        )
    array: Any = volume.array.astype(np.float32)
    result: npt.NDArray[np.float32] = ndimage.affine_transform(
        array, way[:3, :3], way[:3, 3], output_shape=first.shape, order=1, cval=float(array.min())
    )
    return result


def _check_folder(folder: Path, what: str) -> None:
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} (for the {what}). Check its name.")


def _by_number(files: Sequence[Path]) -> list[Scan]:
    """Files as channels of cases, when all are named ``NAME_0000`` and on; else nothing."""
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in files:
        named = _NUMBERED.match(formats.scan_name(file))
        if named is None or named.group(2) in groups[named.group(1)]:
            return []
        groups[named.group(1)][named.group(2)] = file
    numbers = {number for group in groups.values() for number in group}
    if "0000" not in numbers:
        return []  # numbered in some other way
    for name, group in groups.items():
        if lacking := sorted(numbers - set(group)):
            raise UserError(
                f"Case {name} has no channel {lacking[0]}; expected the files "
                f"{', '.join(f'{name}_{n}' for n in sorted(numbers))}. Complete the case or move "
                "it away."
            )
    return [Scan(name, tuple(g[n] for n in sorted(g))) for name, g in groups.items()]


def _series_in(folder: Path) -> list[Scan]:
    """DICOM series by the first folder on the way to them, and what they are called."""
    groups: dict[str, list[dicom.Series]] = defaultdict(list)
    for series in dicom.find_series(folder):
        if len(series.slices) > 1:
            way = series.path.relative_to(folder).parts
            groups[way[0] if len(way) > 1 else folder.absolute().name].append(series)
    scans = []
    for name, several in groups.items():
        taken: set[str] = set()
        for series in several:
            called = name if len(several) == 1 else f"{name} {series.description}".strip()
            number = 1
            while (free := called if number == 1 else f"{called} {number}") in taken:
                number += 1
            taken.add(free)
            scans.append(Scan(free, (series.path,)))
    return scans


def _of_channel(named: Sequence[tuple[str, Path]], channel: str, patient: str) -> Path:
    """The one file or series that is called like a channel, as a word or as a part of one."""
    wanted = channel.casefold()
    words = [p for n, p in named if wanted in re.split(r"[\W_]+", n.casefold())]
    found = words or [p for n, p in named if wanted in n.casefold()]
    if len(found) != 1:
        listed = ", ".join(n or "no description" for n, _ in named[:8])
        raise UserError(
            f"Folder {patient} has {len(found)} scans for the channel '{channel}'; expected one. "
            f"Found: {listed}."
        )
    return found[0]
