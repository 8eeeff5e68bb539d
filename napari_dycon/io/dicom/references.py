"""Minimal headers of the DICOM series that a result refers to.

A DICOM result references its source images and shares their frames. highdicom takes both, and the
patient's identity, from the headers of the images. The headers built here contain only references
and geometry, and the identity only if requested.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_dycon.errors import FileFormatError, GeometryError, UserError
from napari_dycon.io.dicom.files import suppress_warnings
from napari_dycon.io.volume import LPS_TO_RAS, Source

if TYPE_CHECKING:
    from pydicom import Dataset

NON_DICOM_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img")
REQUIRED_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "Rows",
    "Columns",
)
OPTIONAL_TAGS = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
GEOMETRY_TAGS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
)
FUNCTIONAL_GROUP_TAGS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# The standard requires these in every result, though they may be empty.
PATIENT_TAGS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
TOLERANCE_VOXELS = 0.25


@dataclass(frozen=True)
class Reference:
    """Source series of a DICOM result.

    ``images`` are headers for highdicom: one per image, or the one of a multi-frame image.
    ``slice_indices`` is the slice ``k`` of the scan for each frame.
    """

    images: list[Dataset]
    slice_indices: npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Frame:
    """Position of one frame in DICOM coordinates (LPS, mm)."""

    position: Any
    orientation: Any
    spacing: Any
    thickness: float | None

    def compute_corners(self, columns: int, rows: int) -> npt.NDArray[np.float64]:
        """Compute the centers of the first voxel and of the last ones in its row and column."""
        first = np.array(self.position, dtype=np.float64)
        directions = np.array(self.orientation, dtype=np.float64).reshape(2, 3)
        row_spacing, column_spacing = (float(step) for step in self.spacing)
        last = first + directions[0] * column_spacing * (columns - 1)
        return np.stack([first, last, first + directions[1] * row_spacing * (rows - 1)])


def read_reference(source: Source, *, keep_identity: bool) -> Reference:
    """Read the headers of a series again and find each frame's slice.

    Raises
    ------
    UserError
        The scan is not an original DICOM series, or files are missing or incomplete.
    GeometryError
        The positions in the files differ from those when the scan was read.
    """
    _check_source(source)
    with suppress_warnings():
        headers = [
            _read_header(path, all_tags=keep_identity and n == 0)
            for n, path in enumerate(source.files)
        ]
        try:
            frames = [frame for header in headers for frame in _read_frames(header)]
            slices = _match_slices(source, headers, frames)
            images = [
                _build_image_header(
                    header, frames if len(headers) == 1 else [frames[n]], source, keep_identity
                )
                for n, header in enumerate(headers)
            ]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"The headers of {source.files[0].name} and the other files have no valid slice "
                f"positions ({type(error).__name__}). Expected a DICOM series with positions; "
                "export NIfTI instead."
            ) from None
    return Reference(images, slices)


def _check_source(source: Source) -> None:
    name = source.path.name if source.path else "This scan"
    if not source.files:
        if source.path is None or name.lower().endswith(NON_DICOM_SUFFIXES):
            raise UserError(
                f"{name} is not a DICOM series, which a DICOM result must refer to. Export NIfTI "
                "instead."
            )
        raise UserError(
            f"{name} was resampled when it was read, so its voxels differ from the DICOM images "
            "that a DICOM result must refer to. Export NIfTI instead."
        )
    missing = [path.name for path in source.files if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(source.files)} DICOM files of {name} are missing, "
            f"{missing[0]} "
            "first. Restore them at their original path, or export NIfTI instead."
        )


def _read_header(path: Path, *, all_tags: bool) -> Dataset:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    tags: list[Any] | None = (
        None
        if all_tags
        else [*REQUIRED_TAGS, *OPTIONAL_TAGS, *GEOMETRY_TAGS, *FUNCTIONAL_GROUP_TAGS]
    )
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except (InvalidDicomError, OSError, EOFError) as error:
        raise FileFormatError(
            f"{path.name} cannot be read as DICOM ({type(error).__name__}). Expected the original "
            "file of the scan; copy it again, or export NIfTI instead."
        ) from None
    missing = [keyword for keyword in REQUIRED_TAGS if header.get(keyword) in (None, "")]
    if missing:
        raise FileFormatError(
            f"{path.name} has no {', '.join(missing)}, which a DICOM result needs to refer to it. "
            "Export NIfTI instead."
        )
    return header


def _read_frames(header: Dataset) -> list[_Frame]:
    """Read the frames of a file in order; a classic image has one frame."""
    if FUNCTIONAL_GROUP_TAGS[1] not in header:
        return [
            _Frame(
                header.ImagePositionPatient,
                header.ImageOrientationPatient,
                header.PixelSpacing,
                header.get("SliceThickness"),
            )
        ]
    shared = header.get(FUNCTIONAL_GROUP_TAGS[0]) or [{}]
    frames = []
    for groups in header.PerFrameFunctionalGroupsSequence:

        def get_group(keyword: str, own: Any = groups) -> Any:
            return (own if keyword in own else shared[0])[keyword][0]

        measures = get_group("PixelMeasuresSequence")
        frames.append(
            _Frame(
                get_group("PlanePositionSequence").ImagePositionPatient,
                get_group("PlaneOrientationSequence").ImageOrientationPatient,
                measures.PixelSpacing,
                measures.get("SliceThickness"),
            )
        )
    return frames


def _match_slices(
    source: Source, headers: list[Dataset], frames: list[_Frame]
) -> npt.NDArray[np.intp]:
    """Match every frame to a slice by position, and check that it is inside the scan."""
    columns, rows, depth = source.shape
    if len(frames) != depth:
        raise _position_mismatch_error(source, f"{len(frames)} slices", f"{depth}")
    slice_sizes = {(int(header.Columns), int(header.Rows)) for header in headers}
    if slice_sizes != {(columns, rows)}:
        sizes = " and ".join(f"{i} × {j}" for i, j in sorted(slice_sizes))
        raise _position_mismatch_error(source, f"slices of {sizes} voxels", f"{columns} × {rows}")
    to_index = np.linalg.inv(LPS_TO_RAS @ source.affine)
    corners = np.stack([frame.compute_corners(columns, rows) for frame in frames])  # (N, 3, 3)
    index = corners @ to_index[:3, :3].T + to_index[:3, 3]
    slices: npt.NDArray[np.intp] = np.rint(index[:, 0, 2]).astype(np.intp)
    expected = np.zeros_like(index)
    expected[:, 1, 0] = columns - 1
    expected[:, 2, 1] = rows - 1
    expected[:, :, 2] = slices[:, None]
    max_deviation = float(np.abs(index - expected).max())
    if not max_deviation <= TOLERANCE_VOXELS or sorted(slices) != list(range(depth)):
        raise _position_mismatch_error(
            source, f"slices up to {max_deviation:.2g} voxels off", "the positions of the scan"
        )
    return slices


def _position_mismatch_error(source: Source, found: str, expected: str) -> GeometryError:
    return GeometryError(
        f"The DICOM files of {source.path.name if source.path else 'this scan'} do not match the "
        f"scan: found {found}, expected {expected}. Open the scan again, or export NIfTI instead."
    )


def _build_image_header(
    header: Dataset, frames: list[_Frame], source: Source, keep_identity: bool
) -> Dataset:
    """Build a header for highdicom: references, geometry, and the identity if requested."""
    import highdicom as hd
    from pydicom import Dataset
    from pydicom.valuerep import DS

    image = header if keep_identity else Dataset()
    for keyword in (*REQUIRED_TAGS, *OPTIONAL_TAGS):
        if keyword in header:
            setattr(image, keyword, header[keyword].value)
    for keyword in PATIENT_TAGS:
        if keyword not in image:
            setattr(image, keyword, "")
    _repair_values(image)
    # Files give the slice distance with or without gap, or not at all; that of the scan is used.
    steps = source.affine[:3, :3]
    normal = np.cross(steps[:, 0], steps[:, 1])
    distance = round(abs(float(normal @ steps[:, 2])) / float(np.linalg.norm(normal)), 6)
    thickness = frames[0].thickness or distance
    if FUNCTIONAL_GROUP_TAGS[1] not in header:
        image.ImagePositionPatient = frames[0].position
        image.ImageOrientationPatient = frames[0].orientation
        image.PixelSpacing = frames[0].spacing
        image.SliceThickness = DS(thickness, auto_format=True)
        image.SpacingBetweenSlices = DS(distance, auto_format=True)
        return image
    patient = hd.CoordinateSystemNames.PATIENT
    shared = Dataset()
    shared.PlaneOrientationSequence = hd.PlaneOrientationSequence(patient, frames[0].orientation)
    shared.PixelMeasuresSequence = hd.PixelMeasuresSequence(
        frames[0].spacing, float(thickness), distance
    )
    image.NumberOfFrames = len(frames)
    image.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in frames:
        item = Dataset()
        item.PlanePositionSequence = hd.PlanePositionSequence(patient, frame.position)
        groups.append(item)
    image.PerFrameFunctionalGroupsSequence = groups
    return image


def _repair_values(image: Dataset) -> None:
    """Clear values that violate the standard and that highdicom would reject."""
    from pydicom.valuerep import DA, TM

    if image.PatientSex not in ("M", "F", "O"):
        image.PatientSex = ""
    value_types = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
    for keyword, value_type in value_types.items():
        try:
            value_type(image[keyword].value or "")
        except ValueError:
            setattr(image, keyword, "")
