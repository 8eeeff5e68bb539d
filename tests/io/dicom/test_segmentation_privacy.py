"""Patient data in DICOM segmentations and parametric maps: omitted by default."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import (
    IDENTITY,
    ROOT,
    write_enhanced,
    write_series,
)
from helpers.segmentation_checks import (
    SEGMENTS,
    VALUES,
    assert_in_place,
    make_two_classes,
)
from pydicom import Dataset, dcmread

from napari_dycon.io.dicom.segmentation import write_dicom_seg, write_parametric_map
from napari_dycon.io.volume import Volume


def write_and_read(kind: str, volume: Volume, path: Path, keep: bool) -> Dataset:
    if kind == "map":
        array = np.full(volume.shape, 0.5, np.float32)
        write_parametric_map(array, volume, path, name="uncertainty", keep_identity=keep)
    else:
        write_dicom_seg(
            make_two_classes(volume), volume, path, segments=SEGMENTS, keep_identity=keep
        )
    return dcmread(path)


SOURCES = {
    "series": lambda folder: write_series(folder / "scan"),
    "multi-frame": lambda folder: write_enhanced(folder / "scan.dcm", shared=False),
}


@pytest.mark.parametrize("kind", ["segmentation", "map"])
@pytest.mark.parametrize("source", SOURCES)
def test_patient_data_is_omitted_by_default(source: str, kind: str, tmp_path: Path) -> None:
    volume = SOURCES[source](tmp_path)
    result = write_and_read(kind, volume, tmp_path / "out.dcm", keep=False)
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
    result = write_and_read(kind, volume, tmp_path / "out.dcm", keep=True)
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
    mask = make_two_classes(volume)
    path = tmp_path / "seg.dcm"
    caplog.clear()
    write_dicom_seg(mask, volume, path, segments=SEGMENTS, keep_identity=keep)
    assert_in_place(path, mask, volume, VALUES)
    assert str(dcmread(path).PatientName) == ("OnlyOneName" if keep else "")
    assert "OnlyOneName" not in caplog.text + "".join(capfd.readouterr())
