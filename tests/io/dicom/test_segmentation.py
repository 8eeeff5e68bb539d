"""Content of DICOM segmentations and parametric maps, and refused input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from helpers.dicom_files import (
    LPS,
    OBLIQUE,
    ROOT,
    SHAPE,
    write_series,
)
from helpers.segmentation_checks import (
    SEGMENTS,
    assert_in_place,
    make_two_classes,
    read_frames,
)
from pydicom import dcmread

from napari_dycon import __version__
from napari_dycon.errors import FileFormatError, GeometryError, LabelError, UserError
from napari_dycon.io.dicom.segmentation import Segment, write_dicom_seg, write_parametric_map
from napari_dycon.io.dicom.terminology import search
from napari_dycon.io.volume import Source, Volume


def test_a_segment_has_its_metadata(tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan")
    cyst = search("cyst")[0]
    segments = [*SEGMENTS[:2], replace(SEGMENTS[2], code=cyst)]
    path = tmp_path / "seg.dcm"
    write_dicom_seg(make_two_classes(volume), volume, path, segments=segments)
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
    write_dicom_seg(make_two_classes(volume), volume, again, segments=SEGMENTS)
    assert dcmread(again).SOPInstanceUID != result.SOPInstanceUID


def test_a_parametric_map_stores_values_and_units(tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan", OBLIQUE, descending=True)
    values = np.random.default_rng(3).random(volume.shape).astype(np.float32)
    values[0, 0, 0], values[1, 1, 1] = 0, 1
    path = tmp_path / "map.dcm"
    write_parametric_map(values, volume, path, name="uncertainty")
    result, frames = read_frames(path)
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
    mask = make_two_classes(volume)
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
    mask = make_two_classes(volume)
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
