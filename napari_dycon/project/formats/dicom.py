"""DICOM series in: found in folders, told apart, and read as one volume.

Headers and plain pixels are pydicom's, compressed pixels that it cannot decode SimpleITK's (GDCM).
Neither is imported before a DICOM file is met. Names, ids and dates of patients are never read.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon.errors import FileFormatError, UnevenSlicesError
from napari_dycon.project.formats.checks import DEFLATE, MOST_VOXELS, Found
from napari_dycon.project.formats.slices import (
    SAME_MM,
    Slice,
    affine_of,
    check_even,
    in_order,
    resampled,
    spacing_of,
)
from napari_dycon.project.volume import Source

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
SUFFIXES = (".dcm", ".ima", ".dicom")
NO_SCANS = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "FID")
# What may tell images of one place apart, the first that does so wins.
REPEATS = (
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "AcquisitionNumber",
    "ImageType",
    "TriggerTime",
)
TAGS = [
    "SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Rows",
    "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SamplesPerPixel",
    "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *REPEATS,
]  # fmt: skip
MOST_PIXELS = 2**26  # of one image
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Series:
    """Images that may make one volume, in order along their normal."""

    description: str  # as the scanner calls it
    modality: str
    slices: tuple[Slice, ...]

    @property
    def path(self) -> Path:
        """One of its files, by which ``read`` finds the series again."""
        return min(s.path for s in self.slices)

    @property
    def text(self) -> str:
        """Description, size and spacing, to choose by."""
        first = self.slices[0]
        between = f" × {spacing_of(self.slices):.2f}" if len(self.slices) > 1 else ""
        return (
            f"{self.description or 'no description'} ({self.modality}): {first.columns} × "
            f"{first.rows} × {len(self.slices)} voxels, {first.pixel_mm[0]:.2f} × "
            f"{first.pixel_mm[1]:.2f}{between} mm"
        )


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its mark, or else by its name."""
    try:
        with path.open("rb") as file:
            marked = file.read(132)[128:] == b"DICM"
    except OSError:
        return False
    return marked or path.suffix.lower() in SUFFIXES


def find_series(
    folder: Path, *, deep: bool = True, progress: Progress | None = None
) -> list[Series]:
    """Series of a folder, and with ``deep`` of all folders in it.

    Images of one series that cannot be one volume (other directions, sizes, echoes, times) come as
    several; screenshots and other images without a place in space are left out.
    """
    pattern = folder.rglob("*") if deep else folder.iterdir()
    files = sorted(p for p in pattern if not p.name.startswith(".") and p.is_file())
    groups: dict[Key, list[Slice]] = defaultdict(list)
    names: dict[Key, tuple[str, str]] = {}
    for number, file in enumerate(files):
        if progress:
            progress(number, len(files))
        header = _header(file)
        if header is None:
            continue
        for piece in _slices(file, header):
            key = (
                file.parent,
                str(header.get("SeriesInstanceUID", "")),
                piece.rows,
                piece.columns,
                *np.round(np.concatenate([piece.along_row, piece.along_column]), 3).tolist(),
                *np.round(piece.pixel_mm, 3).tolist(),
            )
            groups[key].append(piece)
            names[key] = _text(header, "SeriesDescription"), _text(header, "Modality")
    found = []
    for key, pieces in groups.items():
        description, modality = names[key]
        for label, part in _told_apart(in_order(pieces)):
            name = f"{description} {label}".strip()
            found.append(Series(name, modality, tuple(part)))
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
    series, notes = _one_series(path)
    slices = series.slices
    name = f"Series {series.description}" if series.description else "The series"
    name = f"{name} in {path.name if path.is_dir() else path.parent.name}"
    if len(slices) < 2:
        raise FileFormatError(
            f"{name} has one image; expected a scan with several slices. Choose another series."
        )
    if (number := float(len(slices)) * slices[0].rows * slices[0].columns) > MOST_VOXELS:
        raise FileFormatError(f"{name} claims {number:.3g} voxels, which no scan has.")
    pixels = Pixels(slices)
    even = True
    try:
        check_even(slices, name)
    except UnevenSlicesError as error:
        if not resample:
            raise
        even = False
        notes += (f"{str(error).split('. Expected')[0]}. It was resampled.",)
    if even:
        array = np.empty((len(slices), slices[0].rows, slices[0].columns), pixels.dtype)
        for number, plane in enumerate(pixels.all()):
            array[number] = plane
        affine, files = affine_of(slices), tuple(dict.fromkeys(s.path for s in slices))
    else:
        array, affine = resampled(slices, pixels.of, pixels.dtype)
        files = ()
    k, j, i = array.shape
    return Found(array.transpose(2, 1, 0), Source(path, (i, j, k), affine, None, files), notes)


def _one_series(path: Path) -> tuple[Series, tuple[str, ...]]:
    """Return the series that is meant, and a note on what was passed over."""
    if path.is_dir():
        found = find_series(path)
        volumes = [series for series in found if len(series.slices) > 1]
        if len(volumes) == 1:
            left = len(found) - 1
            note = f"{left} single image(s) beside the series were left out." if left else ""
            return volumes[0], (note,) if note else ()
    else:
        beside = find_series(path.parent, deep=False)
        found = [s for s in beside if any(piece.path == path for piece in s.slices)]
        volumes = [series for series in found if len(series.slices) > 1] or found
        if len(volumes) == 1:
            return volumes[0], ()
    if not found:
        raise FileFormatError(
            f"{path.name} holds no DICOM images with a place in space; expected a series of "
            "slices. Screenshots, reports and X-rays cannot be labelled in 3D."
        )
    listed = "; ".join(series.text for series in (volumes or found)[:6])
    raise FileFormatError(
        f"{path.name} holds {len(volumes or found)} series: {listed}. Expected one; choose one of "
        "them, by one of its files or by a folder of its own."
    )


class Pixels:
    """Pixels of slices in physical units (Hounsfield units, for instance), one after the other."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        self._slices = slices
        self._path: Path | None = None
        self._frames: Array = np.zeros(0)
        self._scaling: list[tuple[float, float]] = []
        scalings, kinds, ranges = set(), set(), []
        for path in dict.fromkeys(s.path for s in slices):
            header = _read_file(path, pixels=False)
            low, high, kind = _stored(header, path)
            kinds.add(kind)
            for slope, intercept in _scalings(header):
                scalings.add((slope, intercept))
                ends = (low * slope + intercept, high * slope + intercept)
                ranges += [min(ends), max(ends)]
        whole = all(float(v).is_integer() for pair in scalings for v in pair)
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        if kinds <= {"i", "u"} and whole:
            for choice in (np.uint8, np.int16, np.uint16, np.int32):
                limits = np.iinfo(choice)
                if limits.min <= min(ranges) and max(ranges) <= limits.max:
                    self.dtype = np.dtype(choice)
                    break

    def all(self) -> Iterator[Array]:
        """Every slice in turn, (rows, columns)."""
        return (self.of(number) for number in range(len(self._slices)))

    def of(self, number: int) -> Array:
        """One slice, (rows, columns), of ``dtype``."""
        piece = self._slices[number]
        if piece.path != self._path:
            self._frames, self._scaling = _decoded(piece.path)
            self._path = piece.path
        index = piece.frame or 0
        plane = self._frames[index]
        if plane.shape != (piece.rows, piece.columns):
            raise _damaged(piece.path)
        slope, intercept = self._scaling[min(index, len(self._scaling) - 1)]
        if (slope, intercept) != (1.0, 0.0):
            exact = np.int64 if self.dtype.kind in "iu" else np.float64
            plane = plane.astype(exact) * exact(slope) + exact(intercept)
        result: Array = plane.astype(self.dtype)
        return result


def _decoded(path: Path) -> tuple[Array, list[tuple[float, float]]]:
    """Frames (n, rows, columns) of a file, and the scaling each still needs."""
    data = _read_file(path, pixels=True)
    rows, columns = int(data.Rows), int(data.Columns)
    with _quietly():
        try:
            pixels = np.asarray(data.pixel_array)
            scaling = _scalings(data)
        except Exception:  # pydicom raises what its parsing and its decoders meet
            if not data.file_meta.TransferSyntaxUID.is_compressed:
                raise _damaged(path) from None
            pixels, scaling = _decoded_by_itk(path), [(1.0, 0.0)]
    if pixels.size % (rows * columns) or not pixels.size:
        raise _damaged(path)
    return pixels.reshape(-1, rows, columns), scaling


def _decoded_by_itk(path: Path) -> Array:
    """Pixels of a compressed file, scaled already."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        array: Array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        raise FileFormatError(
            f"{path.name} is compressed in a way that cannot be decoded here, or damaged. Export "
            "the series uncompressed, or convert it to NIfTI."
        ) from None
    return array


def _stored(header: Any, path: Path) -> tuple[float, float, str]:
    """Lowest and highest value that pixels can have, and their kind."""
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        return 0.0, 0.0, "f"
    try:
        bits = int(header.BitsStored)
        signed = int(header.PixelRepresentation) == 1
    except (AttributeError, TypeError, ValueError):
        raise _damaged(path) from None
    if not 1 <= bits <= 32:
        raise _damaged(path)
    return (
        (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1, "i") if signed else (0.0, 2.0**bits - 1, "u")
    )


def _scalings(data: Any) -> list[tuple[float, float]]:
    """Rescale slope and intercept of each frame; one pair where all have the same."""
    frames = data.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return [_scaling(data)]
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]
    name = "PixelValueTransformationSequence"
    return [_scaling(_functional((frame, shared), name)) for frame in frames]


def _scaling(holder: Any) -> tuple[float, float]:
    """Rescale slope and intercept, where somebody wrote them."""
    if holder is None:
        return 1.0, 0.0
    slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
    return float(slope or 1.0), float(intercept or 0.0)


def _slices(path: Path, header: Any) -> Iterator[Slice]:
    """Images of a file that have a place in space."""
    try:
        if int(header.Rows) * int(header.Columns) > MOST_PIXELS:
            return
        frames = header.get("PerFrameFunctionalGroupsSequence")
        shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
        for number, groups in enumerate([(f, shared) for f in frames] if frames else [()]):
            sources = {
                name: _functional(groups, sequence) if frames else header
                for name, sequence in (
                    ("ImagePositionPatient", "PlanePositionSequence"),
                    ("ImageOrientationPatient", "PlaneOrientationSequence"),
                    ("PixelSpacing", "PixelMeasuresSequence"),
                )
            }
            position, directions, spacing = (
                np.array([float(v) for v in source.get(name)]) for name, source in sources.items()
            )
            row, column = directions[:3], directions[3:]
            lengths = np.linalg.norm(row), np.linalg.norm(column)
            if not (
                len(position) == 3
                and len(directions) == 6
                and len(spacing) == 2
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
                int(header.Columns),
                int(header.Rows),
                number if frames else None,
                tuple(_text(header, name) for name in REPEATS) if not frames else _indices(groups),
            )
    except (AttributeError, TypeError, ValueError, IndexError, OverflowError):
        return  # no place in space, or a damaged header


def _functional(groups: Iterable[Any], sequence: str) -> Any:
    """Functional group of a frame, its own or the one all frames share; ``None`` without any."""
    for group in groups:
        if group is not None and group.get(sequence):
            return group.get(sequence)[0]
    return None


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
    """Header of an image file; ``None`` for anything else."""
    if not is_dicom(path):
        return None
    try:
        header = _read_file(path, pixels=False, tags=TAGS)
    except FileFormatError:
        return None
    if "Rows" not in header or _text(header, "Modality") in NO_SCANS:
        return None
    return header


def _read_file(path: Path, *, pixels: bool, tags: list[str] | None = None) -> Any:
    import pydicom

    try:
        with _quietly():
            data = pydicom.dcmread(
                path, force=True, stop_before_pixels=not pixels, specific_tags=tags
            )
    except Exception:  # pydicom raises whatever its parsing meets
        raise _damaged(path) from None
    if pixels:
        try:
            samples = int(data.get("SamplesPerPixel", 1))
            claimed = float(data.Rows) * float(data.Columns) * int(data.get("NumberOfFrames") or 1)
            if "TransferSyntaxUID" not in data.file_meta:  # of files without the mark
                data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            syntax = data.file_meta.TransferSyntaxUID
        except (AttributeError, TypeError, ValueError):
            raise _damaged(path) from None
        if samples != 1:
            raise FileFormatError(
                f"{path.name} holds colours; expected one number a voxel. Choose another series."
            )
        most = path.stat().st_size * (DEFLATE if syntax.is_compressed else 1)
        if claimed > most or not claimed:
            raise _damaged(path)
    return data


def _text(header: Any, name: str) -> str:
    try:
        value = header.get(name)
    except Exception:  # a damaged element is parsed when it is asked for
        return ""
    return "" if value is None else str(value)


def _damaged(path: Path) -> FileFormatError:
    return FileFormatError(
        f"{path.name} cannot be read: it is damaged or no DICOM image. Expected the images of one "
        "series; copy or export it again."
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep pydicom's remarks on each element from the terminal; they may quote the patient."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
