"""Discovery of the scans in a folder, and reading of scans with several channels."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon import io
from napari_dycon.errors import GeometryError, UserError
from napari_dycon.io import nifti
from napari_dycon.io.dicom import discovery
from napari_dycon.io.files import find_files
from napari_dycon.io.volume import MAX_CHANNELS, Volume, grid_difference

CHANNEL_SUFFIX = re.compile(r"^(.+)_(\d{4})$")  # nnU-Net's channels


@dataclass(frozen=True)
class Scan:
    """A scan: its name, and one path per channel (see ``io.read_volume``)."""

    name: str
    images: tuple[Path, ...]


def find_scans(folder: Path, kind: str, *, known_names: Collection[str] = ()) -> list[Scan]:
    """Find the scans of a folder, sorted by name; raises if there are none.

    Files are scans by their names; nnU-Net's ``NAME_0000``, ``NAME_0001``, ... are channels of one
    scan, and a 4D NIfTI file holds all channels of a scan. In a folder without such files, DICOM
    series are found, also in subfolders, after which they are named.

    Parameters
    ----------
    kind : purpose of the scans, for messages
    known_names : names that are known to be those of scans, such as those of labels
    """
    files = _list_scan_files(folder, kind)
    scans = _group_by_channel_number(files, known_names) or [
        Scan(io.scan_name(p), list_channel_paths(p)) for p in files
    ]
    return _sort_unique(scans or _find_series(folder), folder, kind)


def contains_scans(folder: Path) -> bool:
    """Check whether a folder contains scans by name; true if it cannot be read."""
    try:
        return folder.is_dir() and any(map(io.is_scan, folder.iterdir()))
    except OSError:
        return True  # reading the folder reports the error


def find_labels(folder: Path) -> dict[str, Path]:
    """Find the labels of a folder by name, sorted; raises if there are none."""
    files = _list_scan_files(folder, "labels")
    labels = [Scan(io.scan_name(p), (p,)) for p in files] or _find_series(folder)
    return {scan.name: scan.images[0] for scan in _sort_unique(labels, folder, "labels")}


def scans_from_paths(paths: Sequence[Path]) -> list[Scan]:
    """Build scans from selected files and folders; files of one DICOM series are one scan."""
    scans: list[Scan] = []
    series_by_folder: dict[Path, list[discovery.Series]] = {}
    seen: set[Path] = set()
    for path in (path.absolute() for path in paths):
        if path.is_dir():
            scans += find_scans(path, "scans")
        elif io.is_scan(path) or not path.is_file():  # reading reports that it is missing
            scans.append(Scan(io.scan_name(path), list_channel_paths(path)))
        elif path not in seen:
            if path.parent not in series_by_folder:
                series_by_folder[path.parent] = discovery.find_series(path.parent, recursive=False)
            matching = discovery.series_containing(path, series_by_folder[path.parent])
            for series in matching:
                seen |= {piece.path for piece in series.slices}
            # Any image of a series selects the same scan.
            scans.append(Scan(io.scan_name(path), (matching[0].path if matching else path,)))
    return scans


def read_scan(images: Sequence[Path], name: str, *, resample: bool = False) -> Volume:
    """Read all channels of a scan.

    Channels on other grids than the first are interpolated to its grid, and a note is added.

    Parameters
    ----------
    images : one path per channel
    name : name of the scan, for messages
    resample : see ``io.read_volume``

    Returns
    -------
    ``(D, H, W)``, or ``(C, D, H, W)`` float32 for several channels
    """
    volumes = [io.read_volume(path, resample=resample) for path in images]
    first = volumes[0]
    if len(volumes) == 1:
        return first
    notes = [note for volume in volumes for note in volume.notes]
    arrays = [first.array.astype(np.float32)]
    for number, volume in enumerate(volumes[1:], start=2):
        if difference := grid_difference(volume, first):
            notes.append(
                f"Channel {number} of {name} was resampled to the grid of the first: {difference}."
            )
            arrays.append(_resample_channel(volume, first, f"Channel {number} of {name}"))
        else:
            arrays.append(volume.array.astype(np.float32))
    return Volume(np.stack(arrays), first.affine, first.source, tuple(notes))


def _resample_channel(
    volume: Volume, reference: Volume, description: str
) -> npt.NDArray[np.float32]:
    """Interpolate a volume linearly to a grid; voxels outside of it get its minimum."""
    from scipy import ndimage  # slow to import

    transform: npt.NDArray[np.float64] = np.linalg.inv(volume.affine) @ reference.affine
    corners = transform @ (
        np.array([[*c, 1] for c in np.ndindex(2, 2, 2)]).T * np.array([[*reference.shape, 1]]).T
    )
    low, high = corners[:3].min(axis=1), corners[:3].max(axis=1)
    if np.any(high < 0) or np.any(low > np.array(volume.shape) - 1):
        raise GeometryError(
            f"{description} does not overlap with the first channel. Expected scans of the same "
            "region; check that they are of the same patient and session."
        )
    array: Any = volume.array.astype(np.float32)
    result: npt.NDArray[np.float32] = ndimage.affine_transform(
        array,
        transform[:3, :3],
        transform[:3, 3],
        output_shape=reference.shape,
        order=1,
        cval=float(array.min()),
        mode="grid-constant",  # "constant" loses the edge to rounding errors
    )
    return result


def list_files(folder: Path, kind: str) -> list[Path]:
    """List files and folders in a folder, sorted, without hidden ones."""
    if not folder.is_dir():
        if folder.exists():
            raise UserError(f"{folder} is a file; expected the folder of the {kind}.")
        raise UserError(f"Folder {folder} (for the {kind}) does not exist. Check its name.")
    try:
        return sorted(path for path in folder.iterdir() if path.name[0] != ".")
    except OSError as error:
        raise UserError(
            f"The folder {folder} (for the {kind}) cannot be read ({error.strerror}). Choose "
            "another, or change its permissions."
        ) from None


def _list_scan_files(folder: Path, kind: str) -> list[Path]:
    return [path for path in list_files(folder, kind) if io.is_scan(path) and path.is_file()]


def _sort_unique(scans: list[Scan], folder: Path, kind: str) -> list[Scan]:
    """Sort scans by name; raises if there are none or two have the same name."""
    if not scans:
        content = "labels" if kind == "labels" else "scans"
        nested = next((path for path in find_files(folder) if io.is_scan(path)), None)
        if nested is not None:
            raise UserError(
                f"The folder {folder} (for the {kind}) contains no {content}, but subfolders do,"
                f" such as {nested.relative_to(folder)}. Choose the folder of the {content}; if "
                "each patient has a folder, name the channels (with new: --channels t1,flair)."
            )
        raise UserError(
            f"The folder {folder} (for the {kind}) contains no {content}; expected "
            "NIfTI files (.nii or .nii.gz), NRRD, MetaImage, or DICOM series."
        )
    scans.sort(key=lambda scan: scan.name)
    for one, other in itertools.pairwise(scans):
        if one.name == other.name:
            first, second = (
                io.get_scan_file(s.images[0]).relative_to(folder) for s in (one, other)
            )
            raise UserError(
                f"{folder} contains {first} and {second}, which are both named {one.name}; "
                "expected unique names. Move or rename one of them."
            )
    return scans


def list_channel_paths(file: Path) -> tuple[Path, ...]:
    """List the path of each channel of a 4D file, or the file itself; see ``io.read_volume``."""
    is_nifti = file.name.lower().endswith(nifti.SUFFIXES)
    count = nifti.count_channels(file) if is_nifti and file.exists() else 1
    if not 1 < count <= MAX_CHANNELS:
        return (file,)  # more are time points, which reading rejects
    return tuple(file.with_name(f"{file.name}#{number}") for number in range(count))


def _group_by_channel_number(files: Sequence[Path], known_names: Collection[str]) -> list[Scan]:
    """Group files into cases if all are named ``NAME_0000``, ``NAME_0001``, ...; else none."""
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    others = []
    for file in files:
        match = CHANNEL_SUFFIX.match(io.scan_name(file))
        if match is None:
            others.append(file)
        elif match[2] in groups[match[1]]:
            return []
        else:
            groups[match[1]][match[2]] = file
    numbers = {number for group in groups.values() for number in group}
    if "0000" not in numbers:
        return []  # other numbering
    has_known_name = any(io.scan_name(path) in known_names for path in files)
    if (len(groups) == 1 and (len(numbers) > MAX_CHANNELS or has_known_name)) or (
        len(numbers) == 1 and has_known_name
    ):
        return []  # the numbers count scans, or all names end like this
    if others:
        if len(numbers) == 1:
            return []
        example = next(path for path in files if path not in others)
        raise UserError(
            f"{others[0].name} is not named like the other files, such as {example.name}. "
            "Expected every channel of every case as NAME_0000, NAME_0001 and so on; rename it or "
            "move it to another folder."
        )
    for name, group in groups.items():
        if missing := sorted(numbers - set(group)):
            raise UserError(
                f"Case {name} has no channel {missing[0]}; expected the files "
                f"{', '.join(f'{name}_{n}' for n in sorted(numbers))}. Complete the case or move "
                "it to another folder."
            )
    return [Scan(name, tuple(g[n] for n in sorted(g))) for name, g in groups.items()]


def _find_series(folder: Path) -> list[Scan]:
    """Find DICOM series, named by their subfolder and description."""
    groups: dict[str, list[discovery.Series]] = defaultdict(list)
    known: dict[frozenset[str], Path] = {}
    for series in discovery.find_series(folder):
        if len(series.slices) < 2:
            continue
        subfolder = series.path.parent.relative_to(folder)
        # Otherwise the identifiers are not unique.
        if len(series.image_uids) == len({s.path for s in series.slices}):
            other = known.setdefault(series.image_uids, subfolder)
            if other != subfolder:
                raise UserError(
                    f"{folder} contains the same series twice, in {other} and {subfolder}; "
                    "expected each scan once, since a copy would be counted as another "
                    "patient. Move one away."
                )
        groups[subfolder.parts[0] if subfolder.parts else folder.absolute().name].append(series)
    scans = []
    for name, members in groups.items():
        for number, series in enumerate(members, start=1):
            # Not by description: names become file names, and descriptions may contain anything.
            scan_name = name if len(members) == 1 else f"{name} {number}"
            scans.append(Scan(scan_name, (series.path,)))
    return scans
