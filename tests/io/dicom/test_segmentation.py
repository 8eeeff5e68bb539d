"""DICOM results: every voxel at its position in the patient, and no patient name by default.

SimpleITK is no witness here: it reads the frames of a SEG as one stack, those of all segments
behind each other and without their spacing, and cannot open a parametric map. The independent
reading is therefore done by hand from what pydicom parses, next to highdicom's own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from helpers.dicom_files import (
    AXIAL,
    CORONAL,
    IDENTITY,
    LPS,
    OBLIQUE,
    ROOT,
    SAGITTAL,
    SHAPE,
    read_series,
    write_enhanced,
    write_series,
)
from pydicom import Dataset, dcmread
from pydicom.uid import SegmentationStorage
from scipy.spatial import cKDTree

from napari_dycon import __version__
from napari_dycon.errors import FileFormatError, GeometryError, LabelError, UserError
from napari_dycon.io.dicom.segmentation import Segment, write_dicom_seg, write_parametric_map
from napari_dycon.io.dicom.terminology import search
from napari_dycon.io.volume import Source, Volume

SEGMENTS = [
    Segment(value=2, name="left atrium", color="#d55e00"),
    Segment(value=7, name="empty", color="#0072b2"),
    Segment(value=5, name="Läsion 左\\b", color="#009e73"),
]
VALUES = {1: 2, 2: 5}  # segment number: class value
ORIENTATIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}


def two_classes(volume: Volume) -> np.ndarray:
    """Mask without any symmetry: two speckled boxes, some of it not annotated."""
    rng = np.random.default_rng(0)
    mask = np.zeros(volume.shape, np.uint8)
    d, h, w = (n // 2 for n in volume.shape)
    mask[:d, :h, 1:] = 2
    mask[d + 1 :, 1:, :w] = 5
    mask[rng.random(mask.shape) < 0.3] = 0
    mask[-1, -1] = 255
    return mask


def patient_points(index: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Indices (N, 3) to LPS millimeters (N, 3); the affine leads to RAS."""
    return index @ (LPS @ affine)[:3, :3].T + (LPS @ affine)[:3, 3]


def by_hand(path: Path) -> tuple[Dataset, list[tuple[int, np.ndarray, np.ndarray]]]:
    """Frames of a result as segment number, voxels (rows, columns) and their LPS place."""
    result = dcmread(path)
    rows, columns = result.Rows, result.Columns
    count = int(result.NumberOfFrames)
    if result.SOPClassUID == SegmentationStorage:
        bits = np.unpackbits(np.frombuffer(result.PixelData, np.uint8), bitorder="little")
        voxels = bits[: count * rows * columns].reshape(count, rows, columns)
    else:
        voxels = np.frombuffer(result.FloatPixelData, "<f4").reshape(count, rows, columns)
    shared = result.SharedFunctionalGroupsSequence[0]
    along = np.array(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, np.float64
    ).reshape(2, 3)
    down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    r, c = np.mgrid[:rows, :columns]
    found = []
    for frame, groups in zip(voxels, result.PerFrameFunctionalGroupsSequence, strict=True):
        first = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, np.float64)
        place = first + c[..., None] * across * along[0] + r[..., None] * down * along[1]
        holder = groups if "SegmentIdentificationSequence" in groups else shared
        identified = holder.get("SegmentIdentificationSequence")
        found.append((identified[0].ReferencedSegmentNumber if identified else 0, frame, place))
    return result, found


def assert_same_points(found: np.ndarray, expected: np.ndarray) -> None:
    assert len(found) == len(expected) > 0
    distance, partner = cKDTree(expected).query(found)
    assert distance.max() < 1e-3
    assert len(set(partner)) == len(expected)


def assert_in_place(path: Path, mask: np.ndarray, like: Volume, values: dict[int, int]) -> None:
    """Compare the places of all voxels of each segment, read in two ways, with the mask's."""
    _, frames = by_hand(path)
    segmentation = hd.seg.segread(path)
    stack = segmentation.get_volume(combine_segments=False, allow_missing_positions=True)
    assert [int(n) for n in segmentation.segment_numbers] == list(values)
    for number, value in values.items():
        expected = patient_points(np.argwhere(mask == value), like.affine)
        hand = np.concatenate([place[bits > 0] for n, bits, place in frames if n == number])
        assert_same_points(hand, expected)
        channel = stack.array[..., number - 1]
        own = np.argwhere(channel) @ stack.affine[:3, :3].T + stack.affine[:3, 3]
        assert_same_points(own, expected)


def assert_on_its_images(path: Path, mask: np.ndarray, like: Volume) -> None:
    """Compare each frame with the slice of the image that it names as its source."""
    mask_of = {}
    for file in like.source.files:
        image = dcmread(file)
        rows, columns = np.mgrid[: image.Rows, : image.Columns]
        along = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
        down, across = map(float, image.PixelSpacing)
        place = np.array(image.ImagePositionPatient, float) + (
            columns[..., None] * across * along[0] + rows[..., None] * down * along[1]
        )
        to_index = np.linalg.inv(LPS @ like.affine)
        index = np.rint(place @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)
        mask_of[image.SOPInstanceUID] = mask[tuple(np.moveaxis(index, -1, 0))]
        # The test's own mapping is right if it leads to the voxels that the image holds.
        assert np.array_equal(like.array[tuple(np.moveaxis(index, -1, 0))], image.pixel_array)
    result, frames = by_hand(path)
    groups = result.PerFrameFunctionalGroupsSequence
    for (number, bits, _), group in zip(frames, groups, strict=True):
        named = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert np.array_equal(bits > 0, mask_of[named] == VALUES[number])
    uids = [dcmread(file).SOPInstanceUID for file in like.source.files]
    pixels = hd.seg.segread(path).get_pixels_by_source_instance(
        uids, ignore_spatial_locations=False, assert_missing_frames_are_empty=True
    )
    for number, value in VALUES.items():
        expected = np.stack([mask_of[uid] == value for uid in uids])
        assert np.array_equal(pixels[..., number - 1] > 0, expected)


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_voxel_keeps_its_position(name: str, descending: bool, tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan", ORIENTATIONS[name], descending=descending)
    mask = two_classes(volume)
    write_dicom_seg(mask, volume, tmp_path / "seg.dcm", segments=SEGMENTS)
    assert_in_place(tmp_path / "seg.dcm", mask, volume, VALUES)
    assert_on_its_images(tmp_path / "seg.dcm", mask, volume)
    assert not list(tmp_path.glob(".*")), "a temporary file was left"


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per frame"])
@pytest.mark.parametrize("keep", [False, True], ids=["anonymous", "named"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_frames_of_a_multi_frame_source_may_be_out_of_order(
    name: str, keep: bool, shared: bool, tmp_path: Path
) -> None:
    volume = write_enhanced(tmp_path / "scan.dcm", ORIENTATIONS[name], shared=shared)
    mask = two_classes(volume)
    write_dicom_seg(mask, volume, tmp_path / "seg.dcm", segments=SEGMENTS, keep_identity=keep)
    assert_in_place(tmp_path / "seg.dcm", mask, volume, VALUES)
    source = dcmread(volume.source.files[0]).PerFrameFunctionalGroupsSequence
    for group in dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence:
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == f"{ROOT}.4"
        named = source[reference.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        here = group.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(named.ImagePositionPatient, here, atol=1e-6)


def test_segmentations_of_a_real_oblique_series_are_aligned(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    volume = read_series(real_data("dicom/mr-t1-oblique"))
    mask = np.zeros(volume.shape, np.uint8)
    d, h, w = volume.shape
    mask[d // 3 : d // 2, h // 4 : h // 2, w // 3 : w // 2] = 2
    mask[d // 2 : d - 2, h // 2 : h - 40, w // 2 : w - 30] = 5
    mask[::2, ::3][mask[::2, ::3] > 0] = 0
    write_dicom_seg(mask, volume, tmp_path / "seg.dcm", segments=SEGMENTS)
    assert_in_place(tmp_path / "seg.dcm", mask, volume, VALUES)
    assert_on_its_images(tmp_path / "seg.dcm", mask, volume)
    result, source = dcmread(tmp_path / "seg.dcm"), dcmread(volume.source.files[0])
    assert result.StudyInstanceUID == source.StudyInstanceUID
    assert result.FrameOfReferenceUID == source.FrameOfReferenceUID
    reported = {str(source.get(k)) for k in IDENTITY if len(str(source.get(k) or "")) > 4} - {
        "None"
    }
    text = str(result)
    assert [value for value in reported if value in text] == []


def test_a_segment_has_its_metadata(tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan")
    cyst = search("cyst")[0]
    segments = [*SEGMENTS[:2], replace(SEGMENTS[2], code=cyst)]
    path = tmp_path / "seg.dcm"
    write_dicom_seg(two_classes(volume), volume, path, segments=segments)
    result = hd.seg.segread(path)
    assert result.SegmentationType == "BINARY"
    assert result.SeriesDescription == "napari-dycon segmentation"
    first, second = result.SegmentSequence
    assert [first.SegmentNumber, second.SegmentNumber] == [1, 2]
    assert [first.SegmentLabel, second.SegmentLabel] == ["left atrium", "Läsion 左/b"]
    assert first.segmented_property_type == hd.sr.CodedConcept("82471001", "SCT", "Left atrium")
    assert first.segmented_property_category.meaning == "Anatomical Structure"
    assert second.segmented_property_type.meaning == "Cyst"
    assert second.segmented_property_category.value == cyst.category_value
    for segment, wanted in ((first, SEGMENTS[0]), (second, SEGMENTS[2])):
        assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (
            "napari-dycon",
            __version__,
        )
        color = hd.color.CIELabColor.from_dicom_value(list(segment.RecommendedDisplayCIELabValue))
        rgb = [int(wanted.color[n : n + 2], 16) for n in (1, 3, 5)]
        assert np.allclose(color.to_rgb(clip=True), rgb, atol=2)
    assert (
        result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
        == 3.5
    )
    (series,) = result.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == f"{ROOT}.2" != result.SeriesInstanceUID
    assert len(series.ReferencedInstanceSequence) == SHAPE[2]
    again = tmp_path / "again.dcm"
    write_dicom_seg(two_classes(volume), volume, again, segments=SEGMENTS)
    assert dcmread(again).SOPInstanceUID != result.SOPInstanceUID


def test_a_parametric_map_stores_values_and_units(tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan", OBLIQUE, descending=True)
    values = np.random.default_rng(3).random(volume.shape).astype(np.float32)
    values[0, 0, 0], values[1, 1, 1] = 0, 1
    path = tmp_path / "map.dcm"
    write_parametric_map(values, volume, path, name="uncertainty")
    result, frames = by_hand(path)
    assert len(frames) == SHAPE[2]
    to_index = np.linalg.inv(LPS @ volume.affine)
    for _, found, place in frames:
        index = place @ to_index[:3, :3].T + to_index[:3, 3]
        whole = np.rint(index).astype(int)
        assert np.abs(index - whole).max() < 1e-3
        assert np.array_equal(found, values[tuple(np.moveaxis(whole, -1, 0))])
    stack = hd.imread(path).get_volume(apply_real_world_transform=True)
    index = np.argwhere(np.ones(stack.array.shape)) @ stack.affine[:3, :3].T + stack.affine[:3, 3]
    whole = np.rint(index @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)
    assert np.array_equal(stack.array.ravel().astype(np.float32), values[tuple(whole.T)])
    mapping = result.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.LUTExplanation == result.ContentDescription == "uncertainty"
    assert result.SeriesDescription == "napari-dycon uncertainty"
    assert result.ContentLabel == "MAP_UNCERTAINTY"


def written(kind: str, volume: Volume, path: Path, keep: bool) -> Dataset:
    if kind == "map":
        array = np.full(volume.shape, 0.5, np.float32)
        write_parametric_map(array, volume, path, name="uncertainty", keep_identity=keep)
    else:
        write_dicom_seg(two_classes(volume), volume, path, segments=SEGMENTS, keep_identity=keep)
    return dcmread(path)


SOURCES = {
    "series": lambda folder: write_series(folder / "scan"),
    "multi-frame": lambda folder: write_enhanced(folder / "scan.dcm", shared=False),
}


@pytest.mark.parametrize("kind", ["segmentation", "map"])
@pytest.mark.parametrize("source", SOURCES)
def test_patient_data_is_omitted_by_default(source: str, kind: str, tmp_path: Path) -> None:
    volume = SOURCES[source](tmp_path)
    result = written(kind, volume, tmp_path / "out.dcm", keep=False)
    names, dates, found = [], {}, []
    secrets = re.compile(r"4711|erika|stermann|rudi|petra|otto|2021|1964|\b057Y|68\.5", re.I)
    for element in [*result.iterall(), *result.file_meta]:
        assert not element.tag.is_private
        if element.VR == "PN" and not element.is_empty:
            names.append(element.keyword)
        if element.VR in ("DA", "TM", "DT", "AS") and not element.is_empty:
            dates[element.keyword] = element.value
        if element.VR not in ("SQ", "UI", "OB", "OF", "OW") and secrets.search(str(element.value)):
            found.append(element.keyword)
    assert names == []
    assert dates == {"ContentDate": "19000101", "ContentTime": "000000"}
    assert found == []
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"):
        assert keyword in result, "the standard wants it, though empty"
        assert result[keyword].is_empty
    for keyword in ("PatientAge", "PatientWeight", "StudyDescription", "InstitutionName"):
        assert keyword not in result
    assert result.StudyInstanceUID == f"{ROOT}.1"
    assert result.FrameOfReferenceUID == f"{ROOT}.5"
    assert result.ReferencedSeriesSequence[0].SeriesInstanceUID == f"{ROOT}.2"
    assert result.PatientIdentityRemoved == "YES"
    raw = (tmp_path / "out.dcm").read_bytes()
    # Not within a unique identifier, whose digits are drawn by chance.
    assert not re.search(rb"Erika|(?<![\d.])(4711|20210|19640812)", raw)


@pytest.mark.parametrize("kind", ["segmentation", "map"])
@pytest.mark.parametrize("source", SOURCES)
def test_patient_data_is_kept_on_request(source: str, kind: str, tmp_path: Path) -> None:
    volume = SOURCES[source](tmp_path)
    result = written(kind, volume, tmp_path / "out.dcm", keep=True)
    present = {element.keyword: element for element in result}
    copied = (
        "PatientName PatientID PatientBirthDate PatientSex PatientAge PatientSize PatientWeight "
        "PatientComments StudyDate StudyTime StudyID StudyDescription AccessionNumber "
        "ReferringPhysicianName"
    )
    for keyword in copied.split():
        assert str(present[keyword].value) == IDENTITY[keyword]
    assert "PatientIdentityRemoved" not in result
    assert result.ContentDate != "19000101"
    assert len(result.ContentDate) == 8
    # What describes the acquisition of the images is theirs alone.
    assert result.SeriesDescription.startswith("napari-dycon")
    for keyword in ("OperatorsName", "ProtocolName", "AcquisitionDate"):
        assert keyword not in result
    assert not [element for element in result.iterall() if element.tag.is_private]


@pytest.mark.parametrize("keep", [False, True])
def test_headers_that_break_the_standard_still_work(
    keep: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    volume = write_series(
        tmp_path / "scan",
        without=["SliceThickness", "StudyID", "AccessionNumber", "ReferringPhysicianName"],
        PatientName="OnlyOneName",
        PatientSex="FEMALE",
        PatientBirthDate=None,
        Manufacturer=None,
    )
    mask = two_classes(volume)
    path = tmp_path / "seg.dcm"
    caplog.clear()
    write_dicom_seg(mask, volume, path, segments=SEGMENTS, keep_identity=keep)
    assert_in_place(path, mask, volume, VALUES)
    assert str(dcmread(path).PatientName) == ("OnlyOneName" if keep else "")
    assert "OnlyOneName" not in caplog.text + "".join(capfd.readouterr())


def test_a_class_without_voxels_is_omitted(tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan")
    mask = np.full(volume.shape, 255, np.uint8)
    mask[0] = 0
    with pytest.raises(UserError, match=r"no voxel of any class.*Annotate or predict the case"):
        write_dicom_seg(mask, volume, tmp_path / "seg.dcm", segments=SEGMENTS)
    mask[1, 1, 1] = 5
    write_dicom_seg(mask, volume, tmp_path / "seg.dcm", segments=SEGMENTS)
    result = dcmread(tmp_path / "seg.dcm")
    assert len(result.SegmentSequence) == result.NumberOfFrames == 1
    assert_in_place(tmp_path / "seg.dcm", mask, volume, {1: 5})


def test_mismatched_values_and_shapes_are_refused(tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan")
    mask = two_classes(volume)
    mask[0, 0, 0] = 9
    with pytest.raises(LabelError, match=r"contains the value 9.*expected 2, 7, 5, 0 or 255"):
        write_dicom_seg(mask, volume, tmp_path / "seg.dcm", segments=SEGMENTS)
    with pytest.raises(GeometryError, match="cannot be written on a grid of"):
        write_dicom_seg(mask[1:], volume, tmp_path / "seg.dcm", segments=SEGMENTS)
    for bad in (1.5, -0.1, np.nan):
        values = np.full(volume.shape, 0.5)
        values[0, 0, 0] = bad
        with pytest.raises(UserError, match="expected 0 to 1"):
            write_parametric_map(values, volume, tmp_path / "map.dcm", name="uncertainty")
    assert not list(tmp_path.glob("*.dcm"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (Path("a/scan.nii.gz"), r"scan\.nii\.gz is not a DICOM series.*Export NIfTI"),
        (None, r"This scan is not a DICOM series.*Export NIfTI"),
        (Path("a/series"), r"series was resampled.*Export NIfTI"),
    ],
)
def test_resampled_and_non_dicom_scans_are_refused(
    path: Path | None, message: str, tmp_path: Path
) -> None:
    volume = Volume(np.zeros(SHAPE), np.eye(4), Source(path, SHAPE, np.eye(4)))
    mask = np.ones(SHAPE, np.uint8)
    with pytest.raises(UserError, match=message):
        write_dicom_seg(mask, volume, tmp_path / "o.dcm", segments=[Segment(1, "a", "#d55e00")])
    with pytest.raises(UserError, match=message):
        write_parametric_map(mask / 2, volume, tmp_path / "o.dcm", name="uncertainty")


def test_missing_moved_and_damaged_files_are_reported(tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan")
    mask = two_classes(volume)
    file = volume.source.files[2]
    before = file.read_bytes()

    def export() -> None:
        write_dicom_seg(mask, volume, tmp_path / "seg.dcm", segments=SEGMENTS)

    image = dcmread(file)
    image.ImagePositionPatient = [0, 0, 500]
    image.save_as(file)
    with pytest.raises(
        GeometryError, match=r"do not match the scan: found slices up to .* voxels off"
    ):
        export()
    for keyword in ("ImagePositionPatient", "FrameOfReferenceUID"):
        file.write_bytes(before)
        image = dcmread(file)
        del image[keyword]
        image.save_as(file)
        with pytest.raises(FileFormatError, match=r"[eE]xport NIfTI"):
            export()
    file.write_bytes(b"no DICOM")
    with pytest.raises(FileFormatError, match=rf"{file.name} cannot be read as DICOM"):
        export()
    file.unlink()
    with pytest.raises(
        UserError, match=rf"1 of the 6 DICOM files of scan are missing, {file.name}"
    ):
        export()
    assert not (tmp_path / "seg.dcm").exists()


def test_slices_are_matched_by_position_and_not_by_file_order(tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan", OBLIQUE)
    source = volume.source
    shuffled = Volume(
        volume.array,
        volume.affine,
        Source(source.path, source.shape, source.affine, files=source.files[::-1]),
    )
    mask = two_classes(volume)
    write_dicom_seg(mask, shuffled, tmp_path / "seg.dcm", segments=SEGMENTS)
    assert_in_place(tmp_path / "seg.dcm", mask, volume, VALUES)
    assert_on_its_images(tmp_path / "seg.dcm", mask, volume)
