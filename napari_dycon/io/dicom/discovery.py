"""Discovery of DICOM series in folders, and selection of one.

Neither pydicom nor SimpleITK is imported before a DICOM file is found.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_dycon.core.types import ProgressCallback
from napari_dycon.core.wording import format_count
from napari_dycon.errors import FileFormatError
from napari_dycon.io.dicom.files import header_text, is_dicom, suppress_warnings
from napari_dycon.io.dicom.headers import read_header
from napari_dycon.io.dicom.series_volumes import get_grid_key, read_slices, split_volumes
from napari_dycon.io.dicom.slice_geometry import Slice, compute_slice_spacing, sort_slices
from napari_dycon.io.files import find_files, folder_fingerprint

SeriesKey = tuple[Any, ...]


@dataclass(frozen=True)
class Series:
    """Images that form one volume, sorted along their normal."""

    description: str  # series description of the scanner
    modality: str
    slices: tuple[Slice, ...]
    image_uids: frozenset[str] = frozenset()  # unique identifiers, the same in every copy
    damaged_files: tuple[str, ...] = ()  # unreadable files in its folder, which may belong to it

    @property
    def path(self) -> Path:
        """One of its files, from which ``reader.read`` finds the series again."""
        return min(s.path for s in self.slices)

    @property
    def size(self) -> str:
        """Number of columns, rows and slices."""
        first = self.slices[0]
        return f"{first.columns} × {first.rows} × {len(self.slices)}"

    @property
    def spacing(self) -> str:
        """Distance of columns, rows and slices in mm."""
        pixel = self.slices[0].pixel_mm
        slice_spacing = (
            f" × {compute_slice_spacing(self.slices):.2f}" if len(self.slices) > 1 else ""
        )
        return f"{pixel[0]:.2f} × {pixel[1]:.2f}{slice_spacing}"

    @property
    def summary(self) -> str:
        """Description, size and spacing, for selection by the user."""
        return (
            f"{self.description or 'no description'} ({self.modality}): {self.size} voxels, "
            f"{self.spacing} mm"
        )


@dataclass
class _ImageGroup:
    """Images of one folder, series and grid: one volume, or several at the same position."""

    description: str = ""
    modality: str = ""
    slices: list[Slice] = field(default_factory=list)
    image_uids: dict[Path, str] = field(default_factory=dict)


def find_series(
    folder: Path,
    *,
    recursive: bool = True,
    progress: ProgressCallback | None = None,
    max_files: int | None = None,
) -> list[Series]:
    """Find the series of a folder, and with ``recursive`` of all folders in it.

    Images of one series that do not form one volume (different directions, sizes, echoes, times)
    are split into several; screenshots and other images without a position are left out. An
    unreadable file or folder raises ``FileFormatError``, and so do more than ``max_files`` files.
    """
    if recursive:
        files = find_files(folder, max_files)
    else:
        files = sorted(p for p in folder.iterdir() if p.name[0] != "." and p.is_file())
    groups, damaged_files = _group_images(files, progress)
    series = [one for group in groups for one in _build_series(group, damaged_files)]
    return sorted(series, key=lambda s: (str(s.path), s.slices[0].dimension_values))


def _group_images(
    files: Sequence[Path], progress: ProgressCallback | None
) -> tuple[Iterable[_ImageGroup], dict[Path, list[str]]]:
    """Group the images of files; also returns the names of damaged files by folder."""
    groups: dict[SeriesKey, _ImageGroup] = defaultdict(_ImageGroup)
    damaged_files: dict[Path, list[str]] = defaultdict(list)
    for number, file in enumerate(files):
        if progress:
            progress(number, len(files))
        if not is_dicom(file):
            continue
        try:
            header = read_header(file)
        except FileFormatError:
            damaged_files[file.parent].append(file.name)
            continue
        if header is None:
            continue
        with suppress_warnings():
            uid, image_uid, description, modality = (
                header_text(header, name)
                for name in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription", "Modality")
            )
        for image in read_slices(file, header):
            group = groups[(file.parent, uid, *get_grid_key(image))]
            group.description, group.modality = description, modality
            group.slices.append(image)
            group.image_uids[file] = image_uid
    return groups.values(), damaged_files


def _build_series(group: _ImageGroup, damaged_files: dict[Path, list[str]]) -> list[Series]:
    return [
        Series(
            f"{group.description} {label}".strip(),
            group.modality,
            tuple(slices),
            frozenset(group.image_uids[image.path] for image in slices) - {""},
            tuple(damaged_files.get(slices[0].path.parent, ())),
        )
        for label, slices in split_volumes(sort_slices(group.slices))
    ]


def find_sibling_series(path: Path) -> list[Series]:
    """Find the series in the folder of a file; cached until a file of the folder changes.

    The cache speeds up reading many scans from one folder.
    """
    return _find_series_cached(path.parent, folder_fingerprint(path.parent))


@functools.lru_cache(maxsize=2)
def _find_series_cached(folder: Path, _fingerprint: object) -> list[Series]:
    return find_series(folder, recursive=False)


def series_containing(path: Path, candidates: Sequence[Series]) -> list[Series]:
    """Select the series that contain images of a file."""
    return [series for series in candidates if any(image.path == path for image in series.slices)]


def select_single_series(
    path: Path, candidates: Sequence[Series]
) -> tuple[Series, tuple[str, ...]]:
    """Select the only series with several images; also returns notes on images left out.

    Raises
    ------
    FileFormatError
        There is no series, or there are several.
    """
    volumes = [series for series in candidates if len(series.slices) > 1] or candidates
    if len(volumes) == 1:
        n_omitted = len(candidates) - 1
        verb = "was" if n_omitted == 1 else "were"
        note = f"{format_count(n_omitted, 'single image')} outside the series {verb} left out."
        return volumes[0], (note,) if n_omitted else ()
    if not candidates:
        raise FileFormatError(
            f"{path.name} contains no DICOM images with a position; expected a series of "
            "slices. Screenshots, reports, segmentations and X-rays are not scans."
        )
    summaries = "; ".join(series.summary for series in volumes[:6])
    raise FileFormatError(
        f"{path.name} contains {len(volumes)} series: {summaries}. Expected one; choose one of "
        "its files, or move the series to a separate folder."
    )
