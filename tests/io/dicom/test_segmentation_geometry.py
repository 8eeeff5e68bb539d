"""Positions of the voxels of DICOM segmentations in the patient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import (
    IDENTITY,
    OBLIQUE,
    ROOT,
    read_series,
    write_enhanced,
    write_series,
)
from helpers.segmentation_checks import (
    ORIENTATIONS,
    SEGMENTS,
    VALUES,
    assert_in_place,
    assert_on_its_images,
    make_two_classes,
)
from pydicom import dcmread

from napari_dycon.io.dicom.segmentation import write_dicom_seg
from napari_dycon.io.volume import Source, Volume


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_voxel_keeps_its_position(name: str, descending: bool, tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan", ORIENTATIONS[name], descending=descending)
    mask = make_two_classes(volume)
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
    mask = make_two_classes(volume)
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


def test_slices_are_matched_by_position_and_not_by_file_order(tmp_path: Path) -> None:
    volume = write_series(tmp_path / "scan", OBLIQUE)
    source = volume.source
    shuffled = Volume(
        volume.array,
        volume.affine,
        Source(source.path, source.shape, source.affine, files=source.files[::-1]),
    )
    mask = make_two_classes(volume)
    write_dicom_seg(mask, shuffled, tmp_path / "seg.dcm", segments=SEGMENTS)
    assert_in_place(tmp_path / "seg.dcm", mask, volume, VALUES)
    assert_on_its_images(tmp_path / "seg.dcm", mask, volume)
