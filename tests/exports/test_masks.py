"""Exported masks: sources, positions and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from helpers.dicom_files import OBLIQUE, make_voxels, save_series
from helpers.nifti_files import save_nifti

from napari_dycon import io
from napari_dycon.cli.predict import check_output_folder
from napari_dycon.errors import GeometryError, UserError
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.registry import FORMATS, export, parse_codes
from napari_dycon.exports.selection import Reason
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project
from napari_dycon.session import Session

ALL = {"include_partial": True, "include_unreviewed": True}


@pytest.fixture
def dicom_project(tmp_path: Path) -> Project:
    """Two oblique series; the first is labeled wholly, the second in part and predicted."""
    for name in ("anna", "bert"):
        save_series(tmp_path / "scans" / name / "t1", make_voxels(), directions=OBLIQUE)
    project = create_project(tmp_path / "p", tmp_path / "scans", classes=["pancreas", "cyst"])
    shape = project.read_image("anna").shape
    whole = np.zeros(shape, np.uint8)
    whole[1:3, 2:4, 1:5] = 1
    whole[3, 3, 3] = 2
    project.labels.save("anna", whole)
    part = np.full(shape, 255, np.uint8)
    part[2] = 0
    part[2, 2:4, 2:4] = 1
    project.labels.save("bert", part)
    predicted = np.full(shape, 2, np.uint8)
    run = project.runs.create("dycon", {})
    unsure = np.linspace(0, 1, predicted.size, dtype=np.float32).reshape(shape)
    project.predictions.write(run.id, "bert", predicted, unsure, unsure)
    return project


@pytest.mark.parametrize("format_", ["nifti", "nrrd"])
def test_labels_are_completed_by_predictions_on_the_grid_of_the_scan(
    format_: str, dicom_project: Project, tmp_path: Path
) -> None:
    options = ExportOptions(uncertainty=True, **ALL)
    written = export(dicom_project, format_, tmp_path / "out", options).written
    ending = {"nifti": ".nii.gz", "nrrd": ".nrrd"}[format_]
    assert [p.name for p in written] == [f"anna{ending}", f"bert{ending}"]
    scan = dicom_project.read_image("bert")
    mask = io.read_label(tmp_path / "out" / f"bert{ending}", reference=scan).array
    label = dicom_project.labels.read("bert")
    assert np.array_equal(mask, np.where(label == 255, 2, label))
    unsure = io.read_volume(tmp_path / "out" / f"bert_uncertainty{ending}")
    assert unsure.array.dtype == np.float32
    assert not (tmp_path / "out" / f"anna_uncertainty{ending}").exists()
    # Another program sees mask and series in one place.
    reader = sitk.ImageSeriesReader()
    folder = dicom_project.image_paths("bert")[0].parent
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    series = reader.Execute()
    image = sitk.ReadImage(str(tmp_path / "out" / f"bert{ending}"))
    places = [
        np.sort([i.TransformIndexToPhysicalPoint(c) for c in ((0, 0, 0), (6, 5, 4))], axis=0)
        for i in (series, image)
    ]
    assert np.allclose(*places, atol=1e-3)


def test_the_exported_content_can_be_selected(dicom_project: Project, tmp_path: Path) -> None:
    options = ExportOptions(source="predictions")
    (only,) = export(dicom_project, "nifti", tmp_path / "p", options).written
    assert np.all(nib.load(only).get_fdata() == 2)
    options = ExportOptions(source="labels", cases=["bert"], include_partial=True)
    export(dicom_project, "nifti", tmp_path / "l", options)
    label = io.read_label(tmp_path / "l" / "bert.nii.gz").array
    assert np.array_equal(label, dicom_project.labels.read("bert"))
    options = ExportOptions(source="predictions", cases=["anna"])
    with pytest.raises(UserError, match="None of these cases has a prediction"):
        export(dicom_project, "nifti", tmp_path / "n", options)
    assert not (tmp_path / "n").exists()
    with pytest.raises(UserError, match="expected one of: nifti, nrrd"):
        export(dicom_project, "pdf", tmp_path / "n")
    with pytest.raises(UserError, match="expected auto, labels"):
        ExportOptions(source="all")


def test_dicom_segmentations_have_terms_but_no_patient_names(
    dicom_project: Project, tmp_path: Path
) -> None:
    import pydicom

    codes = parse_codes(dicom_project, ["cyst=neoplasm"])
    options = ExportOptions(uncertainty=True, codes=codes, **ALL)
    export(dicom_project, "dicom-seg", tmp_path / "out", options)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "anna.dcm", "bert.dcm", "bert_uncertainty.dcm", "origins.csv",
    ]  # fmt: skip
    data = pydicom.dcmread(tmp_path / "out" / "anna.dcm")
    meanings = [
        segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for segment in data.SegmentSequence
    ]
    assert meanings[1] == codes[2].meaning
    for path in (tmp_path / "out").iterdir():
        assert b"Secret" not in path.read_bytes()
    with pytest.raises(UserError, match="is not a class name and a term"):
        parse_codes(dicom_project, ["liver=liver"])
    with pytest.raises(UserError, match="No coded term found for 'qwertz'"):
        parse_codes(dicom_project, ["cyst=qwertz"])


def test_dicom_segmentations_need_series(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a DICOM series"):
        export(project, "dicom-seg", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scans_are_never_replaced(project: Project) -> None:
    folder = project.image_paths(project.cases[0].id)[0].parent
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="would overwrite the scan"):
        export(project, "nifti", folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_every_format_is_exported_by_the_command_and_the_session(
    project: Project, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    for name in FORMATS:
        out = tmp_path / name
        code, output, error = run("export", project.path, "--format", name, "--out", out, "--json")
        if name in ("dicom-seg", "monai-bundle"):  # no series, no weights
            assert code == 2
            assert len(error.strip().splitlines()) == 1
        else:
            assert code == 0, error
            assert all(Path(path).exists() for path in json.loads(output)["written"])
    session = Session()
    session.open_project(project.path)
    messages: list[str] = []
    session.message.connect(lambda level, text: messages.append(text))
    session.export("nifti", tmp_path / "session", source="labels")
    assert messages[-1].startswith("Exported ")
    assert list((tmp_path / "session").glob("*.nii.gz"))


def test_files_of_the_project_and_of_other_cases_are_never_replaced(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    files = [save_nifti(tmp_path / folder / "scan.nii.gz", noise) for folder in ("one", "two")]
    project = Project.create(tmp_path / "p")
    project.add_cases(files)  # as scan and scan-2
    part = np.full((7, 6, 5), 255, np.uint8)
    part[0] = 1
    project.labels.save("scan", part)
    run = project.runs.create("dycon", {})
    zeros = np.zeros(part.shape, np.float32)
    project.predictions.write(run.id, "scan", zeros.astype(np.uint8), zeros, zeros)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.nii.gz")}
    with pytest.raises(UserError, match="would overwrite the scan"):
        export(project, "nifti", tmp_path / "two", ExportOptions(**ALL))
    with pytest.raises(UserError, match="labels or predictions of p itself"):
        export(project, "nifti", project.path / "labels")
    with pytest.raises(UserError, match="labels or predictions of p itself"):
        export(project, "nifti", project.path / "predictions" / run.id)
    with pytest.raises(UserError, match="labels or predictions of p itself"):
        check_output_folder([], project.path / "labels", project)
    check_output_folder([], project.path / "predictions" / f"{run.id}-others", project)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.nii.gz")} == before


def test_slices_of_a_series_are_not_replaced(dicom_project: Project) -> None:
    image = dicom_project.image_paths("anna")[0]
    image.with_name("IM0003.dcm").rename(image.with_name("anna.dcm"))
    before = image.with_name("anna.dcm").read_bytes()
    with pytest.raises(UserError, match="would overwrite the scan"):
        export(dicom_project, "dicom-seg", image.parent)
    assert image.with_name("anna.dcm").read_bytes() == before


@pytest.mark.parametrize("what", ["labels", "predictions"])
def test_masks_are_not_written_for_a_scan_whose_geometry_changed(what: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    file = save_nifti(tmp_path / "scan.nii.gz", noise)
    project = Project.create(tmp_path / "p")
    project.add_cases([file])
    mask = np.ones((7, 6, 5), np.uint8)
    project.labels.save("scan", mask)
    run = project.runs.create("dycon", {})
    project.predictions.write(run.id, "scan", mask, mask, mask)
    save_nifti(file, noise, np.diag([3.0, 3.0, 3.0, 1.0]))
    with pytest.raises(GeometryError, match="their positions differ"):
        export(project, "nifti", tmp_path / "out", ExportOptions(source=what))


def test_cases_without_a_structure_are_left_out_of_dicom(
    dicom_project: Project, tmp_path: Path
) -> None:
    healthy = np.zeros(dicom_project.read_image("anna").shape, np.uint8)
    dicom_project.labels.save("anna", healthy)
    result = export(dicom_project, "dicom-seg", tmp_path / "out", ExportOptions(**ALL))
    assert [path.name for path in result.written] == ["bert.dcm"]
    assert [(case.case, case.reason) for case in result.left_out] == [("anna", Reason.EMPTY)]
    with pytest.raises(UserError, match="with foreground voxels"):
        export(dicom_project, "dicom-seg", tmp_path / "none", ExportOptions(cases=["anna"]))


@pytest.mark.parametrize("format_", ["nnunet", "monai-bundle"])
def test_formats_that_write_all_cases_accept_no_selection(
    format_: str, project: Project, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="exports the whole project"):
        export(project, format_, tmp_path / "out", ExportOptions(cases=[project.cases[0].id]))
    assert not (tmp_path / "out").exists()


def test_results_next_to_a_series_are_not_imported_as_scans(dicom_project: Project) -> None:
    folder = dicom_project.image_paths("bert")[0].parent
    options = ExportOptions(cases=["bert"], uncertainty=True, **ALL)
    export(dicom_project, "dicom-seg", folder, options)
    assert (folder / "bert_uncertainty.dcm").exists()
    assert io.read_volume(folder).shape == dicom_project.read_image("bert").shape


def test_cases_without_a_series_are_skipped_with_a_message(
    dicom_project: Project, scans: Path, tmp_path: Path
) -> None:
    (scan, *_) = sorted((scans / "images").iterdir())
    (case,) = dicom_project.add_cases([scan])
    label = np.zeros(dicom_project.read_image(case.id).shape, np.uint8)
    label[2:4, 2:4, 2:4] = 1
    dicom_project.labels.save(case.id, label)
    messages: list[str] = []
    result = export(
        dicom_project, "dicom-seg", tmp_path / "out", ExportOptions(**ALL), on_note=messages.append
    )
    assert [path.name for path in result.written] == ["anna.dcm", "bert.dcm"]
    assert messages[-1].startswith(f"{case.id} was left out: ")
    with pytest.raises(UserError, match=f"{case.id}: .* is not a DICOM series"):
        export(dicom_project, "dicom-seg", tmp_path / "out", ExportOptions(cases=[case.id]))
