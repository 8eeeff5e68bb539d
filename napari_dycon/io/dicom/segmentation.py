"""Writers of DICOM results: segmentations (SEG) and parametric maps.

Both reference the images of the source series and share their frames, so that viewers overlay them
on the scan. By default they contain neither the patient's identity nor any date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_dycon import __version__
from napari_dycon.core.atomic import atomic_write
from napari_dycon.core.types import UNANNOTATED, Array, LabelArray
from napari_dycon.errors import FileFormatError, GeometryError, LabelError, UserError
from napari_dycon.io.dicom.files import suppress_warnings
from napari_dycon.io.dicom.references import Reference, read_reference
from napari_dycon.io.dicom.terminology import Code, suggest
from napari_dycon.io.volume import Volume, from_canonical

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import DataElement, Dataset

SOFTWARE = "napari-dycon"
SERIES_NUMBERS = {"segmentation": 9001, "map": 9002}
NEUTRAL_VALUES = {"ContentDate": "19000101", "ContentTime": "000000"}  # neither may be empty
DATE_VRS = ("DA", "TM", "DT")
AlgorithmType = Literal["MANUAL", "SEMIAUTOMATIC", "AUTOMATIC"]


@dataclass(frozen=True)
class Segment:
    """A structure of a mask and its description in a DICOM segmentation.

    ``value`` is its value in the mask; ``color`` is ``#rrggbb``; ``code`` is the coded term, by
    default the one that ``terminology.suggest`` finds for the name. ``algorithm_type`` says whether
    a person or a program made the segment; a manual one names no algorithm.
    """

    value: int
    name: str
    color: str
    code: Code | None = None
    algorithm_type: AlgorithmType = "SEMIAUTOMATIC"


def write_dicom_seg(
    mask: Array,
    reference: Volume,
    path: Path | str,
    *,
    segments: Sequence[Segment],
    keep_identity: bool = False,
    description: str = f"Segmentation by {SOFTWARE}",
    is_reviewed: bool | None = None,
) -> None:
    """Write a mask as a DICOM segmentation that refers to its series.

    Every structure with voxels becomes one binary segment: numbered from 1 in the order of
    ``segments``, with its name, color and code. Structures without voxels are left out, since a
    segment must have frames; so are slices without any structure.

    Parameters
    ----------
    mask : ``(D, H, W)`` whole numbers on the canonical grid of ``reference``; 0 is background,
        255 is not annotated, and both belong to no segment
    reference : a scan that was read from a DICOM series
    path : the file to write, usually ``NAME.dcm``
    segments : the structures that the mask may contain
    keep_identity : whether to include the patient's identity. By the standard, a segmentation
        repeats patient and study of its images. By default all of these are empty: name, id, birth
        date, sex, age, size and weight, comments, accession number, study id and description,
        physicians, institution and equipment, and every date and time (those of the content, which
        may not be empty, are 1900-01-01, 00:00). The UIDs of the study, the frame of reference and
        the images are kept as references to the series, through which anyone with the series can
        identify the patient. An archive may reject or quarantine a file without a patient: with
        ``True`` everything is copied as in the standard, and the dates of writing are included.
    description : what the mask is; at most 64 characters are written
    is_reviewed : whether a person reviewed it, which becomes part of the description of the series;
        ``None`` if it is not known

    Raises
    ------
    UserError
        The mask is empty, or the scan is not an original DICOM series.
    LabelError
        The mask contains values that are not classes.
    GeometryError
        The mask is not on the grid of the scan, or positions in the files differ from the scan.
    """
    labels, present = _check_mask(mask, reference, segments)
    if not present:
        raise UserError(
            "The mask has no voxel of any class, but a DICOM segmentation needs at least one. "
            "Annotate or predict the case first, or export NIfTI instead."
        )
    segment_numbers = np.zeros(256, np.uint8)
    segment_numbers[[s.value for s in present]] = np.arange(1, len(present) + 1)

    reviewed = {None: "", True: ", reviewed", False: ", not reviewed"}[is_reviewed]

    def build_dataset(frames: Array, images: list[Dataset], common: dict[str, Any]) -> Dataset:
        from highdicom.seg import Segmentation, SegmentationTypeValues

        return Segmentation(
            source_images=images,
            pixel_array=segment_numbers[frames],
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _describe_segment(number, segment)
                for number, segment in enumerate(present, start=1)
            ],
            series_number=SERIES_NUMBERS["segmentation"],
            series_description=f"{SOFTWARE} segmentation{reviewed}",
            content_label="SEGMENTATION",
            content_description=_sanitize_text(description, 64),
            omit_empty_frames=True,
            **common,
        )

    _write_dataset(build_dataset, labels, reference, Path(path), keep_identity)


def write_parametric_map(
    array: Array, reference: Volume, path: Path | str, *, name: str, keep_identity: bool = False
) -> None:
    """Write a map, such as an uncertainty, as a DICOM parametric map on the frames of its series.

    Parameters
    ----------
    array : ``(D, H, W)`` numbers from 0 to 1 on the canonical grid of ``reference``; written as
        float32 real-world values without unit
    reference : a scan that was read from a DICOM series
    path : the file to write, usually ``NAME.dcm``
    name : meaning of the values, such as ``uncertainty``; at most 50 characters are written
    keep_identity : whether to include the patient's identity, as for ``write_dicom_seg``

    Raises
    ------
    UserError
        Values are outside 0 to 1, or the scan is not an original DICOM series.
    GeometryError
        The map is not on the grid of the scan, or positions in the files differ from the scan.
    """
    _check_shape(array, reference)
    values = np.asarray(array, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also for NaN
        raise UserError(
            f"The map {name} contains values from {low:g} to {high:g}; expected 0 to 1. "
            "Scale it before exporting it as DICOM, or export NIfTI instead."
        )
    title = _sanitize_text(name, 50) or "map"

    def build_dataset(frames: Array, images: list[Dataset], common: dict[str, Any]) -> Dataset:
        import highdicom as hd
        from pydicom.sr.codedict import codes

        mapping = hd.pm.RealWorldValueMapping(
            lut_label=title[:16],
            lut_explanation=title,
            unit=codes.UCUM.NoUnits,
            value_range=(0.0, 1.0),
            slope=1.0,
            intercept=0.0,
        )
        window = hd.VOILUTTransformation(
            window_center=0.5, window_width=1.0, voi_lut_function="LINEAR_EXACT"
        )
        return hd.pm.ParametricMap(
            source_images=images,
            pixel_array=frames,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[window],
            contains_recognizable_visual_features=False,
            series_number=SERIES_NUMBERS["map"],
            series_description=f"{SOFTWARE} {title}",
            content_label=re.sub(r"[^A-Z0-9]+", "_", f"MAP {title}".upper())[:16].strip("_"),
            content_description=title,
            **common,
        )

    _write_dataset(build_dataset, values, reference, Path(path), keep_identity)


def _check_mask(
    mask: Array, reference: Volume, segments: Sequence[Segment]
) -> tuple[LabelArray, list[Segment]]:
    """Return the mask as uint8, and the segments that have voxels in it."""
    _check_shape(mask, reference)
    values = set(np.unique(mask).tolist())
    unknown = sorted(values - {0, UNANNOTATED, *(s.value for s in segments)})
    if unknown:
        raise LabelError(
            f"The mask contains the value {unknown[0]:g}, which is not a class; expected "
            f"{', '.join(str(s.value) for s in segments)}, 0 or {UNANNOTATED}. Add the class, or "
            "correct the mask."
        )
    return mask.astype(np.uint8), [s for s in segments if s.value in values]


def _check_shape(array: Array, reference: Volume) -> None:
    if array.shape != reference.shape:
        raise GeometryError(
            f"An array of {array.shape} voxels cannot be written on a grid of {reference.shape}."
        )


def _describe_segment(number: int, segment: Segment) -> SegmentDescription:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    code = segment.code or suggest(segment.name)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=SOFTWARE, family=codes.DCM.ArtificialIntelligence, version=__version__
    )
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=_sanitize_text(segment.name, 64),
        segmented_property_category=hd.sr.CodedConcept(
            code.category_value, code.category_scheme, code.category_meaning
        ),
        segmented_property_type=hd.sr.CodedConcept(code.value, code.scheme, code.meaning),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues(segment.algorithm_type),
        algorithm_identification=None if segment.algorithm_type == "MANUAL" else algorithm,
        display_color=hd.color.CIELabColor.from_string(segment.color),
    )


def _sanitize_text(text: str, max_length: int) -> str:
    """Convert to valid DICOM text: one line, without backslashes, which separate values."""
    return " ".join(text.replace("\\", "/").split())[:max_length]


def _write_dataset(
    build_dataset: Callable[[Array, list[Dataset], dict[str, Any]], Dataset],
    array: Array,
    reference: Volume,
    path: Path,
    keep_identity: bool,
) -> None:
    """Arrange the voxels as frames of the series, build the result and write it."""
    try:
        import highdicom as hd
    except ModuleNotFoundError as error:
        raise UserError(
            f"Writing DICOM needs the package {error.name}, which is not installed. Install it "
            "with: pip install highdicom"
        ) from None
    series_reference: Reference = read_reference(reference.source, keep_identity=keep_identity)
    frames = from_canonical(array, reference.source).transpose(2, 1, 0)[
        series_reference.slice_indices
    ]
    common = {
        "series_instance_uid": hd.UID(),
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": SOFTWARE,
        "manufacturer_model_name": SOFTWARE,
        "software_versions": __version__,
        "device_serial_number": "1",  # required by the standard
        "content_creator_name": "",
        "specific_character_set": "ISO_IR 192",  # UTF-8: class names may be in any script
    }
    with atomic_write(path) as temporary, suppress_warnings():
        try:
            result = build_dataset(np.ascontiguousarray(frames), series_reference.images, common)
            if not keep_identity:
                _deidentify(result)
            result.save_as(temporary)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # Messages of the libraries may quote the headers.
            raise FileFormatError(
                f"{path.name} cannot be created from the headers of "
                f"{reference.source.files[0].name} and the other files ({type(error).__name__}): "
                "they violate the DICOM standard. Export NIfTI instead."
            ) from (None if keep_identity else error)


def _deidentify(result: Dataset) -> None:
    """Remove the dates that highdicom sets, and record that the patient was left out."""

    def remove_dates(dataset: Dataset, element: DataElement) -> None:
        if element.keyword in NEUTRAL_VALUES:
            element.value = NEUTRAL_VALUES[element.keyword]
        elif element.VR in DATE_VRS and not element.is_empty:
            del dataset[element.tag]

    result.walk(remove_dates)
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = f"Patient, study and dates left out by {SOFTWARE}; UIDs kept"
    result.LongitudinalTemporalInformationModified = "REMOVED"
