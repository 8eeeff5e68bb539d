"""DICOM series in: found in folders, told apart, and read as one volume.

Neither pydicom nor SimpleITK is imported before a DICOM file is met. Names, ids and dates of
patients are not asked for.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.errors import FileFormatError, UnevenSlicesError
from napari_dycon.io.dicom.files import damaged, is_dicom, quietly, read_file, text_of
from napari_dycon.io.dicom.pixels import (
    SCALE_TAGS,
    Pixels,
    functional_group,
    stored_values,
)
from napari_dycon.io.dicom.slice_geometry import (
    SAME_MM,
    Slice,
    affine_of,
    check_even,
    in_order,
    resampled,
    spacing_of,
)
from napari_dycon.io.files import files_below, folder_state
from napari_dycon.io.validation import MOST_VOXELS, Found, check_memory
from napari_dycon.io.volume import Source, room_for

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
NO_SCANS = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "FID")
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"  # a result, such as the uncertainty written here
# What may tell images of one place apart, the first that does so wins.
REPEATS = (
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "AcquisitionNumber",
    "ImageType",
    "TriggerTime",
)
# Where a slice lies: of plain files in the header itself, of multi-frame ones in these groups.
PLACES = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "SeriesNumber",
    "SeriesDescription", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SamplesPerPixel", "NumberOfFrames", *SCALE_TAGS, *REPEATS,
]  # fmt: skip
MOST_FILES = 100_000  # in a folder that stands for one scan
MOST_PIXELS = 2**26  # of one image
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Series:
    """Images that may make one volume, in order along their normal."""

    description: str  # as the scanner calls it
    modality: str
    slices: tuple[Slice, ...]
    images: frozenset[str] = frozenset()  # unique identifiers, the same in every copy
    damaged: tuple[str, ...] = ()  # files beside it that cannot be read, and may belong to it

    @property
    def path(self) -> Path:
        """One of its files, by which ``read`` finds the series again."""
        return min(s.path for s in self.slices)

    @property
    def size(self) -> str:
        """Voxels along columns, rows and slices."""
        first = self.slices[0]
        return f"{first.columns} × {first.rows} × {len(self.slices)}"

    @property
    def spacing(self) -> str:
        """Millimeters between columns, rows and slices."""
        pixel = self.slices[0].pixel_mm
        between = f" × {spacing_of(self.slices):.2f}" if len(self.slices) > 1 else ""
        return f"{pixel[0]:.2f} × {pixel[1]:.2f}{between}"

    @property
    def text(self) -> str:
        """Description, size and spacing, to choose by."""
        return (
            f"{self.description or 'no description'} ({self.modality}): {self.size} voxels, "
            f"{self.spacing} mm"
        )


def find_series(
    folder: Path,
    *,
    deep: bool = True,
    progress: Progress | None = None,
    most: int | None = None,
) -> list[Series]:
    """Series of a folder, and with ``deep`` of all folders in it.

    Images of one series that cannot be one volume (other directions, sizes, echoes, times) come as
    several; screenshots and other images without a place in space are left out. A file or folder
    that may not be read raises ``FileFormatError``, and so do more than ``most`` files.
    """
    if deep:
        files = files_below(folder, most)
    else:
        files = sorted(p for p in folder.iterdir() if p.name[0] != "." and p.is_file())
    groups: dict[Key, list[Slice]] = defaultdict(list)
    names: dict[Key, tuple[str, str]] = {}
    images: dict[Path, str] = {}
    broken: dict[Path, list[str]] = defaultdict(list)
    for number, file in enumerate(files):
        if progress:
            progress(number, len(files))
        if not is_dicom(file):
            continue
        try:
            header = _header(file)
        except FileFormatError:
            broken[file.parent].append(file.name)
            continue
        if header is None:
            continue
        with quietly():
            uid, images[file], *named = (
                text_of(header, n)
                for n in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription", "Modality")
            )
        for piece in _slices(file, header):
            key = (
                file.parent,
                uid,
                piece.rows,
                piece.columns,
                *np.round(np.concatenate([piece.along_row, piece.along_column]), 3).tolist(),
                *np.round(piece.pixel_mm, 3).tolist(),
            )
            groups[key].append(piece)
            names[key] = named[0], named[1]
    found = []
    for key, pieces in groups.items():
        description, modality = names[key]
        for label, part in _told_apart(in_order(pieces)):
            name = f"{description} {label}".strip()
            unique = frozenset(images[piece.path] for piece in part) - {""}
            beside = tuple(broken[part[0].path.parent])
            found.append(Series(name, modality, tuple(part), unique, beside))
    return sorted(found, key=lambda s: (str(s.path), s.slices[0].repeat))


def read(path: Path, *, resample: bool = False) -> Found:
    """Read the series of a folder, or the one that a file belongs to.

    Raises
    ------
    FileFormatError
        There is none, there are several, or its pixels cannot be read.
    GeometryError, UnevenSlicesError
        Its slices are no even grid; see ``slices.check_even``.
    """
    if path.is_dir():
        found = find_series(path, most=MOST_FILES)
    else:
        path = path.absolute()
        beside = _series_beside(path.parent, folder_state(path.parent))
        found = with_images_of(path, beside)
    series, notes = the_only_one(path, found)
    return read_series(series, path, notes, resample=resample)


def read_series(
    series: Series,
    path: Path,
    notes: tuple[str, ...] = (),
    *,
    resample: bool = False,
    progress: Progress | None = None,
) -> Found:
    """Read a series that was found; ``path`` is where a person knows it from.

    Raises
    ------
    FileFormatError, GeometryError, UnevenSlicesError
        As ``read``.
    """
    slices = series.slices
    name = f"Series {series.description}" if series.description else "The series"
    name = f"{name} in {path.name if path.is_dir() else path.parent.name}"
    if len(slices) < 2:
        raise FileFormatError(
            f"{name} has one image; expected a scan with several slices. Choose another series."
        )
    if (number := float(len(slices)) * slices[0].rows * slices[0].columns) > MOST_VOXELS:
        raise FileFormatError(f"{name} claims {number:.3g} voxels, which no scan has.")
    if series.damaged:
        notes += (
            f"{len(series.damaged)} damaged file(s) beside the series were left out, such as "
            f"{series.damaged[0]}; slices may be missing at its ends.",
        )
    pixels = Pixels(slices)
    check_memory(path, slices[0].rows * slices[0].columns * len(slices) * pixels.dtype.itemsize)
    even = True
    try:
        check_even(slices, name)
    except UnevenSlicesError as error:
        if not resample:
            raise
        even = False
        notes += (f"{error.found}. It was resampled.",)
    if not even:
        stack, affine = resampled(slices, pixels.of, pixels.dtype)
        k, j, i = stack.shape
        return Found(stack.transpose(2, 1, 0), Source(path, (i, j, k), affine), notes, False)
    shape = slices[0].columns, slices[0].rows, len(slices)
    files = tuple(dict.fromkeys(s.path for s in slices))
    source = Source(path, shape, affine_of(slices), None, files)
    array = room_for(source, pixels.dtype)
    for number, plane in enumerate(pixels.all()):
        array[:, :, number] = plane.T
        if progress:
            progress(number + 1, len(slices))
    return Found(array, source, notes, borrowed=False)


def with_images_of(path: Path, found: Sequence[Series]) -> list[Series]:
    """Those series that a file has images of."""
    return [series for series in found if any(piece.path == path for piece in series.slices)]


def the_only_one(path: Path, found: Sequence[Series]) -> tuple[Series, tuple[str, ...]]:
    """Return the series that is meant, and a note on what was passed over.

    Raises
    ------
    FileFormatError
        There is none, or there are several.
    """
    volumes = [series for series in found if len(series.slices) > 1] or found
    if len(volumes) == 1:
        left = len(found) - 1
        note = f"{left} single image(s) beside the series were left out." if left else ""
        return volumes[0], (note,) if note else ()
    if not found:
        raise FileFormatError(
            f"{path.name} holds no DICOM images with a place in space; expected a series of "
            "slices. Screenshots, reports, segmentations and X-rays are no scans."
        )
    listed = "; ".join(series.text for series in volumes[:6])
    raise FileFormatError(
        f"{path.name} holds {len(volumes)} series: {listed}. Expected one; choose one of them, by "
        "one of its files or by a folder of its own."
    )


@functools.lru_cache(maxsize=2)
def _series_beside(folder: Path, _state: object) -> list[Series]:
    """Series of a folder in one state; many scans may be read from it, one after the other."""
    return find_series(folder, deep=False)


def _names_a_scan(header: Any) -> bool:
    """Whether a file's own preface says that it holds images, and not screenshots."""
    try:
        name = str(header.file_meta.MediaStorageSOPClassUID.name)
    except AttributeError:
        return False
    except Exception:  # a damaged preface: pydicom parses elements when they are asked for
        return True
    return name.endswith("Image Storage") and "Secondary Capture" not in name


def _slices(path: Path, header: Any) -> list[Slice]:
    """Images of a file that have a place in space."""
    try:
        with quietly():
            return list(_placed(path, header))
    except Exception:  # pydicom parses elements when they are asked for, and raises what it meets
        return []


def _placed(path: Path, header: Any) -> Iterator[Slice]:
    rows, columns = int(header.Rows), int(header.Columns)
    if rows * columns > MOST_PIXELS:
        return
    frames = header.get("PerFrameFunctionalGroupsSequence")
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    values = stored_values(header)
    for number, groups in enumerate([(f, shared) for f in frames] if frames else [()]):
        position, directions, spacing = (
            np.array([float(v) for v in source.get(name)])
            for name, source in (
                (name, functional_group(groups, sequence) if frames else header)
                for name, sequence in PLACES.items()
            )
        )
        row, column = directions[:3], directions[3:]
        lengths = np.linalg.norm(row), np.linalg.norm(column)
        if not (
            (len(position), len(directions), len(spacing)) == (3, 6, 2)
            and np.all(np.isfinite(np.concatenate([position, directions, spacing])))
            and np.all(spacing > 0)
            and np.allclose(lengths, 1, atol=1e-2)
            and abs(float(row @ column)) < 1e-2
        ):
            continue
        yield Slice(
            path,
            position,
            row / lengths[0],
            column / lengths[1],
            (float(spacing[1]), float(spacing[0])),
            columns,
            rows,
            number if frames else None,
            _indices(groups) if frames else tuple(text_of(header, name) for name in REPEATS),
            values[min(number, len(values) - 1)] if values else None,
        )


def _indices(groups: Sequence[Any]) -> tuple[str, ...]:
    """What tells a frame of a multi-frame file from others in its place."""
    content = groups[0].get("FrameContentSequence")
    if not content:
        return ()
    return (
        str(content[0].get("TemporalPositionIndex", "")),
        str(content[0].get("FrameAcquisitionNumber", "")),
    )


def _told_apart(slices: list[Slice]) -> Iterator[tuple[str, list[Slice]]]:
    """Split images that lie in the same places by what differs between them."""
    if not _overlap(slices):
        yield "", slices
        return
    for index in range(max((len(s.repeat) for s in slices), default=0)):
        parts: dict[str, list[Slice]] = defaultdict(list)
        for piece in slices:
            parts[piece.repeat[index] if index < len(piece.repeat) else ""].append(piece)
        if len(parts) > 1 and not any(_overlap(part) for part in parts.values()):
            for number, (_, part) in enumerate(sorted(parts.items()), start=1):
                yield f"({number} of {len(parts)})", part
            return
    yield "", slices


def _overlap(slices: Sequence[Slice]) -> bool:
    return len(slices) > 1 and bool(np.any(np.diff([s.height for s in slices]) < SAME_MM))


def _header(path: Path) -> Any:
    """Header of a DICOM image; ``None`` for other DICOM files, an error for a damaged one."""
    header = read_file(path, pixels=False, tags=TAGS)
    with quietly():
        if "Rows" not in header and _names_a_scan(header):
            raise damaged(path)  # an image that ends before its size
        if "Rows" not in header or text_of(header, "Modality") in NO_SCANS:
            return None
        if text_of(header, "SOPClassUID") == PARAMETRIC_MAP:
            return None
    return header
