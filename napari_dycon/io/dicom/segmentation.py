"""DICOM results out: a segmentation (SEG) and a parametric map, each beside its series.

Both refer to the images of the source series and lie on their frames, so that a viewer shows them
over the scan. By default they name neither the patient nor any date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True)
class Segment:
    """A structure of a mask, and how a DICOM segmentation describes it.

    ``value`` is the structure's in the mask; ``color`` is ``#rrggbb``; ``code`` is the coded term,
    by default the one that ``terminology.suggest`` finds for the name.
    """

    value: int
    name: str
    color: str
    code: Code | None = None


def write_dicom_seg(
    mask: Array,
    reference: Volume,
    path: Path | str,
    *,
    segments: Sequence[Segment],
    keep_identity: bool = False,
) -> None:
    """Write a mask as a DICOM segmentation that refers to the series it was drawn on.

    Every structure with voxels becomes one binary segment: numbered from 1 in the order of
    ``segments``, with its name, color and code. Structures without voxels are left out, since
    a segment must have frames; so are slices in which nothing is segmented.

    Parameters
    ----------
    mask : ``(D, H, W)`` whole numbers on the canonical grid of ``reference``; 0 is background,
        255 is not annotated, and both belong to no segment
    reference : a scan that was read from a DICOM series
    path : the file to write, usually ``NAME.dcm``
    segments : the structures that the mask may hold
    keep_identity : whether to say who the patient is. The standard has a segmentation repeat the
        patient and study of its images. By default all of that stays empty: name, id, birth
        date, sex, age, size and weight, comments, accession number, study id and description,
        physicians, institution and equipment, and every date and time (the content's own, which
        may not be empty, are 1900-01-01, 00:00). The UIDs of the study, of the frame of reference
        and of the images stay, since through them it refers to the series; who has the series can
        find the patient. An archive may refuse or set aside a file without a patient: with
        ``True`` everything is copied as the standard has it, and the dates of writing are given.

    Raises
    ------
    UserError
        The mask is empty, or the scan is no DICOM series as it was acquired.
    LabelError
        The mask holds values that are no class.
    GeometryError
        The mask does not lie on the grid of the scan, or the files not where the scan does.
    """
    labels, present = _check_mask(mask, reference, segments)
    if not present:
        raise UserError(
            "The mask has no voxel of any class, and a DICOM segmentation needs one at least. "
            "Label the case or predict it first, or export NIfTI instead."
        )
    segment_numbers = np.zeros(256, np.uint8)
    segment_numbers[[s.value for s in present]] = np.arange(1, len(present) + 1)

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
            series_description=f"{SOFTWARE} segmentation",
            content_label="SEGMENTATION",
            content_description=f"Segmentation by {SOFTWARE}",
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
        float32 that are the real-world values, without a unit
    reference : a scan that was read from a DICOM series
    path : the file to write, usually ``NAME.dcm``
    name : what the values are, such as ``uncertainty``; at most 50 letters are written
    keep_identity : whether to say who the patient is, as for ``write_dicom_seg``

    Raises
    ------
    UserError
        Values lie outside 0 to 1, or the scan is no DICOM series as it was acquired.
    GeometryError
        The map does not lie on the grid of the scan, or the files not where the scan does.
    """
    _check_shape(array, reference)
    values = np.asarray(array, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise UserError(
            f"The map {name} holds values from {low:g} to {high:g}; expected numbers from 0 to 1. "
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
            f"The mask holds the value {unknown[0]:g}, which is no class of the project; expected "
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
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=_sanitize_text(segment.name, 64),
        segmented_property_category=hd.sr.CodedConcept(
            code.category_value, code.category_scheme, code.category_meaning
        ),
        segmented_property_type=hd.sr.CodedConcept(code.value, code.scheme, code.meaning),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=SOFTWARE, family=codes.DCM.ArtificialIntelligence, version=__version__
        ),
        display_color=hd.color.CIELabColor.from_string(segment.color),
    )


def _sanitize_text(text: str, max_length: int) -> str:
    """Text as DICOM can hold it: one line, and no backslash, which separates values there."""
    return " ".join(text.replace("\\", "/").split())[:max_length]


def _write_dataset(
    build_dataset: Callable[[Array, list[Dataset], dict[str, Any]], Dataset],
    array: Array,
    reference: Volume,
    path: Path,
    keep_identity: bool,
) -> None:
    """Put the voxels on the frames of the series, make the result of them and write it."""
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
        "device_serial_number": "1",  # the standard wants one
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
            # What the libraries say may quote the headers.
            raise FileFormatError(
                f"{path.name} cannot be made from the headers of {reference.source.files[0].name} "
                f"and the files beside it ({type(error).__name__}): they are not those of a DICOM "
                "series by the standard. Export NIfTI instead."
            ) from (None if keep_identity else error)


def _deidentify(result: Dataset) -> None:
    """Take away the dates that highdicom sets, and say that the patient was left out."""

    def remove_dates(dataset: Dataset, element: DataElement) -> None:
        if element.keyword in NEUTRAL_VALUES:
            element.value = NEUTRAL_VALUES[element.keyword]
        elif element.VR in DATE_VRS and not element.is_empty:
            del dataset[element.tag]

    result.walk(remove_dates)
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = f"Patient, study and dates left out by {SOFTWARE}; UIDs kept"
    result.LongitudinalTemporalInformationModified = "REMOVED"
