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

from napari_dycon.errors import FileFormatError, IrregularSlicesError
from napari_dycon.io.dicom.files import (
    damaged_file_error,
    header_text,
    is_dicom,
    read_file,
    suppress_warnings,
)
from napari_dycon.io.dicom.pixels import (
    SCALE_TAGS,
    PixelReader,
    get_functional_group,
    read_value_encodings,
)
from napari_dycon.io.dicom.slice_geometry import (
    MIN_SLICE_DISTANCE_MM,
    Slice,
    check_regular_spacing,
    compute_affine,
    compute_slice_spacing,
    resample_slices,
    sort_slices,
)
from napari_dycon.io.files import find_files, folder_fingerprint
from napari_dycon.io.validation import MAX_VOXELS, LoadedImage, check_memory
from napari_dycon.io.volume import Source, allocate_like

Array = npt.NDArray[Any]
OnProgress = Callable[[int, int], None]
NON_IMAGE_MODALITIES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "FID")
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"  # a result, such as the uncertainty written here
# What may tell images of one place apart, the first that does so wins.
FRAME_DIMENSIONS = (
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "AcquisitionNumber",
    "ImageType",
    "TriggerTime",
)
# Where a slice lies: of plain files in the header itself, of multi-frame ones in these groups.
POSITION_TAGS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
HEADER_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "SeriesNumber",
    "SeriesDescription", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SamplesPerPixel", "NumberOfFrames", *SCALE_TAGS, *FRAME_DIMENSIONS,
]  # fmt: skip
MAX_FILES = 100_000  # in a folder that stands for one scan
MAX_IMAGE_PIXELS = 2**26  # of one image
SeriesKey = tuple[Any, ...]


@dataclass(frozen=True)
class Series:
    """Images that may make one volume, in order along their normal."""

    description: str  # as the scanner calls it
    modality: str
    slices: tuple[Slice, ...]
    image_uids: frozenset[str] = frozenset()  # unique identifiers, the same in every copy
    damaged_files: tuple[str, ...] = ()  # files beside it that cannot be read, and may belong to it

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
        slice_spacing = (
            f" × {compute_slice_spacing(self.slices):.2f}" if len(self.slices) > 1 else ""
        )
        return f"{pixel[0]:.2f} × {pixel[1]:.2f}{slice_spacing}"

    @property
    def summary(self) -> str:
        """Description, size and spacing, to choose by."""
        return (
            f"{self.description or 'no description'} ({self.modality}): {self.size} voxels, "
            f"{self.spacing} mm"
        )


def find_series(
    folder: Path,
    *,
    recursive: bool = True,
    progress: OnProgress | None = None,
    max_files: int | None = None,
) -> list[Series]:
    """Series of a folder, and with ``deep`` of all folders in it.

    Images of one series that cannot be one volume (other directions, sizes, echoes, times) come as
    several; screenshots and other images without a place in space are left out. A file or folder
    that may not be read raises ``FileFormatError``, and so do more than ``most`` files.
    """
    if recursive:
        files = find_files(folder, max_files)
    else:
        files = sorted(p for p in folder.iterdir() if p.name[0] != "." and p.is_file())
    groups: dict[SeriesKey, list[Slice]] = defaultdict(list)
    names: dict[SeriesKey, tuple[str, str]] = {}
    uids: dict[Path, str] = {}
    damaged_files: dict[Path, list[str]] = defaultdict(list)
    for number, file in enumerate(files):
        if progress:
            progress(number, len(files))
        if not is_dicom(file):
            continue
        try:
            header = _read_header(file)
        except FileFormatError:
            damaged_files[file.parent].append(file.name)
            continue
        if header is None:
            continue
        with suppress_warnings():
            uid, uids[file], *description_modality = (
                header_text(header, n)
                for n in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription", "Modality")
            )
        for image in _read_slices(file, header):
            key = (
                file.parent,
                uid,
                image.rows,
                image.columns,
                *np.round(
                    np.concatenate([image.row_direction, image.column_direction]), 3
                ).tolist(),
                *np.round(image.pixel_mm, 3).tolist(),
            )
            groups[key].append(image)
            names[key] = description_modality[0], description_modality[1]
    series = []
    for key, slices in groups.items():
        description, modality = names[key]
        for label, volume_slices in _split_volumes(sort_slices(slices)):
            name = f"{description} {label}".strip()
            image_uids = frozenset(uids[image.path] for image in volume_slices) - {""}
            damaged_siblings = tuple(damaged_files[volume_slices[0].path.parent])
            series.append(
                Series(name, modality, tuple(volume_slices), image_uids, damaged_siblings)
            )
    return sorted(series, key=lambda s: (str(s.path), s.slices[0].dimension_values))


def read(path: Path, *, resample: bool = False) -> LoadedImage:
    """Read the series of a folder, or the one that a file belongs to.

    Raises
    ------
    FileFormatError
        There is none, there are several, or its pixels cannot be read.
    GeometryError, IrregularSlicesError
        Its slices are no even grid; see ``slices.check_even``.
    """
    if path.is_dir():
        candidates = find_series(path, max_files=MAX_FILES)
    else:
        path = path.absolute()
        siblings = _sibling_series(path.parent, folder_fingerprint(path.parent))
        candidates = series_containing(path, siblings)
    series, notes = select_single_series(path, candidates)
    return read_series(series, path, notes, resample=resample)


def read_series(
    series: Series,
    path: Path,
    notes: tuple[str, ...] = (),
    *,
    resample: bool = False,
    progress: OnProgress | None = None,
) -> LoadedImage:
    """Read a series that was found; ``path`` is where a person knows it from.

    Raises
    ------
    FileFormatError, GeometryError, IrregularSlicesError
        As ``read``.
    """
    slices = series.slices
    name = f"Series {series.description}" if series.description else "The series"
    name = f"{name} in {path.name if path.is_dir() else path.parent.name}"
    if len(slices) < 2:
        raise FileFormatError(
            f"{name} has one image; expected a scan with several slices. Choose another series."
        )
    if (number := float(len(slices)) * slices[0].rows * slices[0].columns) > MAX_VOXELS:
        raise FileFormatError(f"{name} claims {number:.3g} voxels, which no scan has.")
    if series.damaged_files:
        notes += (
            f"{len(series.damaged_files)} damaged file(s) beside the series were left out, such as "
            f"{series.damaged_files[0]}; slices may be missing at its ends.",
        )
    pixels = PixelReader(slices)
    check_memory(path, slices[0].rows * slices[0].columns * len(slices) * pixels.dtype.itemsize)
    is_regular = True
    try:
        check_regular_spacing(slices, name)
    except IrregularSlicesError as error:
        if not resample:
            raise
        is_regular = False
        notes += (f"{error.finding}. It was resampled.",)
    if not is_regular:
        stack, affine = resample_slices(slices, pixels.read_frame, pixels.dtype)
        k, j, i = stack.shape
        return LoadedImage(stack.transpose(2, 1, 0), Source(path, (i, j, k), affine), notes, False)
    shape = slices[0].columns, slices[0].rows, len(slices)
    files = tuple(dict.fromkeys(s.path for s in slices))
    source = Source(path, shape, compute_affine(slices), None, files)
    array = allocate_like(source, pixels.dtype)
    for number, plane in enumerate(pixels.read_all()):
        array[:, :, number] = plane.T
        if progress:
            progress(number + 1, len(slices))
    return LoadedImage(array, source, notes, shares_memory=False)


def series_containing(path: Path, candidates: Sequence[Series]) -> list[Series]:
    """Those series that a file has images of."""
    return [series for series in candidates if any(image.path == path for image in series.slices)]


def select_single_series(
    path: Path, candidates: Sequence[Series]
) -> tuple[Series, tuple[str, ...]]:
    """Return the series that is meant, and a note on what was passed over.

    Raises
    ------
    FileFormatError
        There is none, or there are several.
    """
    volumes = [series for series in candidates if len(series.slices) > 1] or candidates
    if len(volumes) == 1:
        n_omitted = len(candidates) - 1
        note = f"{n_omitted} single image(s) beside the series were left out." if n_omitted else ""
        return volumes[0], (note,) if note else ()
    if not candidates:
        raise FileFormatError(
            f"{path.name} holds no DICOM images with a place in space; expected a series of "
            "slices. Screenshots, reports, segmentations and X-rays are no scans."
        )
    summaries = "; ".join(series.summary for series in volumes[:6])
    raise FileFormatError(
        f"{path.name} holds {len(volumes)} series: {summaries}. Expected one; choose one of them, by "
        "one of its files or by a folder of its own."
    )


@functools.lru_cache(maxsize=2)
def _sibling_series(folder: Path, _fingerprint: object) -> list[Series]:
    """Series of a folder in one state; many scans may be read from it, one after the other."""
    return find_series(folder, recursive=False)


def _is_image_header(header: Any) -> bool:
    """Whether a file's own preface says that it holds images, and not screenshots."""
    try:
        name = str(header.file_meta.MediaStorageSOPClassUID.name)
    except AttributeError:
        return False
    except Exception:  # a damaged preface: pydicom parses elements when they are asked for
        return True
    return name.endswith("Image Storage") and "Secondary Capture" not in name


def _read_slices(path: Path, header: Any) -> list[Slice]:
    """Images of a file that have a place in space."""
    try:
        with suppress_warnings():
            return list(_parse_frames(path, header))
    except Exception:  # pydicom parses elements when they are asked for, and raises what it meets
        return []


def _parse_frames(path: Path, header: Any) -> Iterator[Slice]:
    rows, columns = int(header.Rows), int(header.Columns)
    if rows * columns > MAX_IMAGE_PIXELS:
        return
    frames = header.get("PerFrameFunctionalGroupsSequence")
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    values = read_value_encodings(header)
    for number, groups in enumerate([(f, shared) for f in frames] if frames else [()]):
        position, directions, spacing = (
            np.array([float(v) for v in source.get(name)])
            for name, source in (
                (name, get_functional_group(groups, sequence) if frames else header)
                for name, sequence in POSITION_TAGS.items()
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
            _dimension_indices(groups)
            if frames
            else tuple(header_text(header, name) for name in FRAME_DIMENSIONS),
            values[min(number, len(values) - 1)] if values else None,
        )


def _dimension_indices(groups: Sequence[Any]) -> tuple[str, ...]:
    """What tells a frame of a multi-frame file from others in its place."""
    content = groups[0].get("FrameContentSequence")
    if not content:
        return ()
    return (
        str(content[0].get("TemporalPositionIndex", "")),
        str(content[0].get("FrameAcquisitionNumber", "")),
    )


def _split_volumes(slices: list[Slice]) -> Iterator[tuple[str, list[Slice]]]:
    """Split images that lie in the same places by what differs between them."""
    if not _positions_overlap(slices):
        yield "", slices
        return
    for index in range(max((len(s.dimension_values) for s in slices), default=0)):
        volumes: dict[str, list[Slice]] = defaultdict(list)
        for image in slices:
            volumes[
                image.dimension_values[index] if index < len(image.dimension_values) else ""
            ].append(image)
        if len(volumes) > 1 and not any(_positions_overlap(part) for part in volumes.values()):
            for number, (_, volume) in enumerate(sorted(volumes.items()), start=1):
                yield f"({number} of {len(volumes)})", volume
            return
    yield "", slices


def _positions_overlap(slices: Sequence[Slice]) -> bool:
    return len(slices) > 1 and bool(
        np.any(np.diff([s.location_mm for s in slices]) < MIN_SLICE_DISTANCE_MM)
    )


def _read_header(path: Path) -> Any:
    """Header of a DICOM image; ``None`` for other DICOM files, an error for a damaged one."""
    header = read_file(path, include_pixels=False, tags=HEADER_TAGS)
    with suppress_warnings():
        if "Rows" not in header and _is_image_header(header):
            raise damaged_file_error(path)  # an image that ends before its size
        if "Rows" not in header or header_text(header, "Modality") in NON_IMAGE_MODALITIES:
            return None
        if header_text(header, "SOPClassUID") == PARAMETRIC_MAP:
            return None
    return header
