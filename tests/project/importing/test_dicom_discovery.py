"""Discovery of DICOM series and patients."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from helpers.dicom_files import CORONAL, OBLIQUE, make_voxels, save_series
from helpers.nifti_files import save_nifti
from helpers.scan_folders import list_names, train_and_predict

from napari_dycon.errors import GeometryError, IrregularSlicesError, UserError
from napari_dycon.io import read_volume
from napari_dycon.io.dicom.discovery import find_series
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.discovery import (
    find_scans,
)
from napari_dycon.project.importing.patient_folders import find_patient_folders
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]


def test_dicom_patients_are_named_after_their_first_folder(tmp_path: Path) -> None:
    save_series(tmp_path / "p1" / "study" / "1", make_voxels())
    save_series(tmp_path / "p2", make_voxels())
    for number, description in enumerate(("T2", "ADC/b=0 ../x", "T2")):
        save_series(tmp_path / "p3" / str(number), make_voxels(), description=description)
    save_series(tmp_path / "p3" / "localizer", make_voxels()[:1])
    (tmp_path / "p1" / "report.dcm").write_text("no image")
    (tmp_path / "p1" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "p1" / "study" / "1" / "Thumbs.db").write_bytes(os.urandom(500))
    shutil.copytree(tmp_path / "p2", tmp_path / ".trash" / "p2")
    found = list_names(tmp_path)
    assert found == ["p1", "p2", "p3 1", "p3 2", "p3 3"]  # people write anything into descriptions
    project = create_project(tmp_path.parent / f"{tmp_path.name}-p", tmp_path)
    assert [case.id for case in project.cases] == found


def test_a_folder_with_one_series_is_a_scan_named_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_series(tmp_path / "p7", make_voxels())
    assert list_names(tmp_path / "p7") == ["p7"]
    monkeypatch.chdir(tmp_path / "p7")
    assert list_names(Path()) == ["p7"]


def test_a_copy_of_a_series_is_not_another_patient(tmp_path: Path) -> None:
    save_series(tmp_path / "p1" / "a", make_voxels())
    shutil.copytree(tmp_path / "p1" / "a", tmp_path / "p1" / "b")
    with pytest.raises(
        UserError, match=r"contains the same series twice, in p1/a and p1/b; expected"
    ):
        find_scans(tmp_path, "images")
    (tmp_path / "p1" / "b").rename(tmp_path / "p2")
    with pytest.raises(UserError, match=r"twice, in p1/a and p2; expected each"):
        find_scans(tmp_path, "images")

    def unnamed(data: Any, number: int) -> None:
        data.SOPInstanceUID = "1.2.3"  # as some programs anonymise

    save_series(tmp_path / "q" / "1", make_voxels(), change=unnamed)
    save_series(tmp_path / "q" / "2", make_voxels(), change=unnamed)
    assert list_names(tmp_path / "q") == ["1", "2"]


def test_equal_file_names_of_two_patients_are_distinct(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        save_series(tmp_path / "in" / patient / "x", make_voxels() + 10 * (patient == "p2"))
    project = create_project(tmp_path / "p", tmp_path / "in")
    assert [project.read_image(case).array.min() for case in ("p1", "p2")] == [0, 10]


def test_a_dicom_scan_can_have_a_label(tmp_path: Path) -> None:
    for number, patient in enumerate(("p1", "p2", "p3")):
        label = np.zeros((18, 20, 22), np.int16)
        label[4:12, 4 + number : 12, 6:14] = 1
        noise = np.random.default_rng(number).normal(100, 10, label.shape)
        voxels = (noise + 80 * label).astype(np.int16)
        directions = OBLIQUE if number else CORONAL
        save_series(tmp_path / "in" / patient / "st" / "se", voxels, directions=directions)
        if number < 2:  # drawn elsewhere, and written by SimpleITK on the scan's grid
            drawn = sitk.GetImageFromArray(label.astype(np.uint8))
            drawn.CopyInformation(read_series_with_itk(tmp_path / "in" / patient / "st" / "se"))
            (tmp_path / "labels").mkdir(exist_ok=True)
            sitk.WriteImage(drawn, tmp_path / "labels" / f"{patient}.nii.gz")
    project = create_project(tmp_path / "p", tmp_path / "in", tmp_path / "labels")
    assert [c.status for c in project.cases] == ["labeled", "labeled", "unlabeled"]
    for case in ("p1", "p2"):
        inside = project.labels.read(case) == 1
        image = project.read_image(case).array
        assert image[inside].mean() > image[~inside].mean() + 70

    # What is drawn here lies on the scan's grid as SimpleITK sees both.
    mask = np.zeros(project.read_image("p3").shape, np.uint8)
    mask[2:5, 3:9, 1:7] = 1
    image = project.read_image("p3").array
    project.labels.save("p3", mask)
    reference = read_series_with_itk(tmp_path / "in" / "p3" / "st" / "se")
    ours = sitk.ReadImage(str(project.labels.path("p3")))
    for corner in np.ndindex(2, 2, 2):
        index = [int(c * (n - 1)) for c, n in zip(corner, ours.GetSize(), strict=True)]
        place = ours.TransformIndexToPhysicalPoint(index)
        assert all(float(v).is_integer() for v in reference.TransformPhysicalPointToIndex(place))
        back = reference.TransformPhysicalPointToContinuousIndex(place)
        assert np.allclose(back, np.rint(back), atol=1e-3)
    on_scan = sitk.Resample(ours, reference, sitk.Transform(), sitk.sitkNearestNeighbor)
    inside = sitk.GetArrayFromImage(on_scan) == 1
    assert sorted(sitk.GetArrayFromImage(reference)[inside]) == sorted(image[mask == 1])
    reopened = Project.open(project.path)
    assert np.array_equal(reopened.labels.read("p3"), mask)
    project.labels.save("p3", np.full(mask.shape, 255, np.uint8))
    train_and_predict(project, "p3")

    shifted = nib.load(tmp_path / "labels" / "p1.nii.gz")
    affine = shifted.affine.copy()
    affine[:3, 3] += 5
    save_nifti(tmp_path / "labels" / "p1.nii.gz", np.asarray(shifted.dataobj), affine)
    with pytest.raises(
        GeometryError, match=r"Label p1.nii.gz does not fit .*their positions differ"
    ):
        create_project(tmp_path / "q", tmp_path / "in", tmp_path / "labels")


def read_series_with_itk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_a_tilted_series_is_a_case_on_request(
    run: Run, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = real_data("dicom/ct-gantry-tilt")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "p1").symlink_to(folder, target_is_directory=True)
    code, _, err = run("new", tmp_path / "p", "--images", tmp_path / "in")
    assert code == 2
    assert "tilted gantry" in err.replace("\n", " ")
    assert "--resample" in err
    code, _, err = run("new", tmp_path / "p", "--images", tmp_path / "in", "--resample")
    assert code == 0
    assert "It was resampled" in err.replace("\n", " ")
    project = Project.open(tmp_path / "p")
    assert project.get_case("p1").resampled
    volume = project.read_image("p1")
    mask = np.zeros(volume.shape, np.uint8)
    mask[3:9, 100:200, 50:70] = 1
    project.labels.save("p1", mask)
    again = Project.open(tmp_path / "p")
    assert np.array_equal(again.labels.read("p1"), mask)
    assert again.get_case("p1").status == "labeled"
    label = read_volume(again.labels.path("p1"))
    assert np.allclose(label.affine, volume.affine, atol=1e-4)


def test_several_series_in_one_folder_are_separated(tmp_path: Path) -> None:
    """As some archives hand them out; the search goes through the folder once."""
    for number in range(6):
        for path in save_series(tmp_path / "new", make_voxels((30, 4, 4)) + number):
            path.rename(tmp_path / f"{number}-{path.name}")
    (tmp_path / "new").rmdir()
    seen: list[tuple[int, int]] = []
    found = find_series(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert [len(s.slices) for s in found] == [30] * 6
    assert seen[-1] == (179, 180)
    project = create_project(tmp_path.parent / f"{tmp_path.name}-p", tmp_path)
    assert sorted(project.read_image(c.id).array.min() for c in project.cases) == list(range(6))


def test_added_and_changed_files_are_detected(tmp_path: Path) -> None:
    paths = save_series(tmp_path, make_voxels())
    paths[-1].rename(tmp_path / "hidden.txt~")
    (tmp_path / "hidden.txt~").write_bytes((bytes_ := (tmp_path / "hidden.txt~").read_bytes())[:99])
    assert read_volume(paths[0]).shape == (4, 6, 7)
    paths[-1].write_bytes(bytes_)
    assert read_volume(paths[0]).shape == (5, 6, 7)
    data = pydicom.dcmread(paths[1])
    data.ImagePositionPatient[2] += 0.8
    data.save_as(paths[1])
    with pytest.raises(IrregularSlicesError):
        read_volume(paths[0])


def test_descriptions_in_other_character_sets_are_decoded(tmp_path: Path) -> None:
    save_series(tmp_path / "p1" / "1", make_voxels(), description="Schädel t1")

    def japanese(data: Any, number: int) -> None:
        data.SpecificCharacterSet = "ISO_IR 192"
        data.SeriesDescription = "脳 flair"
        for element in list(data):
            if element.VR == "PN":
                del data[element.tag]

    save_series(tmp_path / "p1" / "2", make_voxels(), change=japanese)
    assert list_names(tmp_path) == ["p1 1", "p1 2"]
    assert [p.parent.name for p in find_patient_folders(tmp_path, ["脳", "schädel"])[0].images] == [
        "2",
        "1",
    ]
