"""The report: figures, images, and escaping of names from the project."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.nifti_files import save_nifti
from helpers.report_pages import read_page, read_rows, write_predictions

from napari_dycon.core.atomic import write_json
from napari_dycon.engine.evaluation.segmentation_metrics import evaluate_case
from napari_dycon.errors import ProjectError, UserError
from napari_dycon.exports.report.figures import MAX_PIXELS
from napari_dycon.exports.report.statistics import classify_label_use
from napari_dycon.exports.report.write import write_report
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.models import ClassInfo
from napari_dycon.project.store import Project


def test_a_report_can_be_made_of_labels_alone(project: Project, tmp_path: Path) -> None:
    reported: list[tuple[int, int, str]] = []
    path = write_report(
        project, tmp_path / "out", on_progress=lambda *values: reported.append(values)
    )
    assert path == tmp_path / "out" / "report.html"
    page = read_page(path)
    assert "this report covers labels only" in page.text
    assert len(page.pictures) == 6 * 3
    assert reported[-1] == (6, 6, "scan-5")
    first, last = read_rows(tmp_path / "out")[0], read_rows(tmp_path / "out")[-1]
    # A box of 8 voxels a side, of 1 × 1.2 × 1.5 mm each.
    assert float(first["label_ml"]) == pytest.approx(8**3 * 1.8 / 1000)
    assert (first["label"], first["dice"], last["label"]) == ("complete", "", "no label")
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_report_figures_equal_those_of_the_evaluation(project: Project, tmp_path: Path) -> None:
    project.set_split("scan-2", "validation")
    run = write_predictions(project, [f"scan-{i}" for i in range(5)])
    page = read_page(write_report(project, tmp_path / "out"))
    found = {row["case"]: row for row in read_rows(tmp_path / "out")}
    label = project.labels.read("scan-2")
    assert label is not None
    spacing = project.read_image("scan-2").spacing_mm
    wanted = evaluate_case(project.predictions.read(run.id, "scan-2"), label, spacing, [1])
    for name in ("dice", "jaccard", "hd95_mm", "asd_mm"):
        assert float(found["scan-2"][name]) == pytest.approx(wanted["classes"]["1"][name], rel=1e-4)
    assert found["scan-2"]["use"] == "validation"
    assert found["scan-1"]["use"] == "training"
    assert float(found["scan-4"]["uncertainty"]) == pytest.approx(0.25)
    assert float(found["scan-4"]["prediction_ml"]) > 0
    assert (found["scan-4"]["dice"], found["scan-5"]["prediction_ml"]) == ("", "")
    assert f"5 cases predicted by run {run.id}, method DyCON, 12 steps." in page.text
    mean = f"Validation 1 box {wanted['classes']['1']['reference_volume_ml']:.2f}"
    assert mean in page.text
    assert f"{wanted['classes']['1']['dice']:.2f}" in page.text
    assert len(page.pictures) == 5 * 6 + 3


def test_a_partial_label_is_scored_only_where_annotated(project: Project, tmp_path: Path) -> None:
    run = write_predictions(project, ["scan-0", "scan-1"])
    label = project.labels.read("scan-0")
    assert label is not None
    middle = int(label.sum((1, 2)).argmax())
    sparse = np.full_like(label, 255)
    sparse[middle] = label[middle]
    project.labels.save("scan-0", sparse)
    page = read_page(write_report(project, tmp_path / "out"))
    row = read_rows(tmp_path / "out")[0]
    guess = project.predictions.read(run.id, "scan-0")
    common = 2 * int((guess[middle] & label[middle]).sum())
    assert float(row["dice"]) == pytest.approx(
        common / int(guess[middle].sum() + label[middle].sum())
    )
    assert (row["label"], row["hd95_mm"], row["asd_mm"]) == ("partial", "", "")
    assert float(row["label_ml"]) == pytest.approx(int(label[middle].sum()) * 1.8 / 1000)
    assert "are evaluated only in annotated voxels" in page.text
    assert "Training 1 box" in page.text  # scan-1 alone

    sparse[middle] = 0  # annotated, and nothing of the structure in it
    project.labels.save("scan-0", sparse)
    write_report(project, tmp_path / "out", cases=["scan-0"])
    (row,) = read_rows(tmp_path / "out")
    assert (row["dice"], row["label_ml"]) == ("", "")


def test_a_structure_in_only_one_of_label_and_prediction_is_marked(
    project: Project, tmp_path: Path
) -> None:
    run = write_predictions(project, ["scan-0"])
    shape = project.read_image("scan-0").shape
    nothing = np.zeros(shape, np.float32)
    project.predictions.write(run.id, "scan-0", nothing.astype(np.uint8), nothing, nothing)
    page = read_page(write_report(project, tmp_path / "out", cases=["scan-0"]))
    (row,) = read_rows(tmp_path / "out")
    assert (row["missed"], float(row["dice"]), row["prediction_ml"]) == ("yes", 0.0, "0")
    assert "is in only one of label and prediction" in page.text


def test_names_are_escaped_in_the_report(scans: Path, tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    classes = [
        ClassInfo(value=1, name=bad, color="#112233"),
        ClassInfo(value=2, name="=HYPERLINK(1)", color="#332211"),
        ClassInfo(value=3, name="\t@SUM(1)", color="#332211"),
    ]
    project = Project.create(tmp_path / "p", classes=classes, name=f'{bad}"&', channels=[bad, "b"])
    image = sorted((scans / "images").iterdir())[0]
    project.add_cases([[image, image]], ids=["é 1+2_. -x"])
    case = project.cases[0].id
    label = np.zeros(project.read_image(case).shape, np.uint8)
    label[4:9, 4:9, 4:9] = 1
    project.labels.save(case, label)
    path = write_report(project, tmp_path / "out")
    page = read_page(path)
    assert "<script" not in path.read_text(encoding="utf-8")
    assert page.text.count(bad) >= 4
    assert case in page.text
    found = read_rows(tmp_path / "out")
    assert [row["class"] for row in found] == [bad, "'=HYPERLINK(1)", "'\t@SUM(1)"]
    assert found[0]["case"] == case


def test_missing_values_are_explained_in_their_row(project: Project, tmp_path: Path) -> None:
    run = write_predictions(project, ["scan-0", "scan-1", "scan-2", "scan-4"])
    project.image_paths("scan-0")[0].unlink()
    project.labels.path("scan-1").write_bytes(b"nothing")
    save_nifti(project.predictions.path(run.id, "scan-2"), np.ones((5, 5, 5), np.uint8))
    project.image_paths("scan-3")[0].write_bytes(b"nothing")
    project.predictions.path(run.id, "scan-4").write_bytes(b"nothing")
    path = write_report(project, tmp_path / "out")
    page = read_page(path)
    found = {row["case"]: row for row in read_rows(tmp_path / "out")}
    notes = {
        "scan-0": "The scan file is missing.",
        "scan-1": "The label cannot be read.",
        "scan-2": "The prediction is left out: its grid differs from that of the scan.",
        "scan-3": "The scan cannot be read.",
        "scan-4": "The prediction cannot be read.",
        "scan-5": "",
    }
    assert {case: row["notes"] for case, row in found.items()} == notes
    assert all(note in page.text for note in notes.values())
    assert float(found["scan-0"]["dice"]) > 0  # label and prediction are still there
    assert len(page.pictures) == 3 + 6 + 3 + 3  # scans 1, 2, 4, 5, one with its uncertainty
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_the_first_channel_is_drawn_with_its_physical_aspect_ratio(tmp_path: Path) -> None:
    affine = np.diag([0.5, 0.5, 4.0, 1.0])
    first = np.zeros((300, 240, 20), np.int16)
    first[:150] = 100  # towards the patient's left, since the file runs to the right
    files = [
        save_nifti(tmp_path / "a.nii.gz", first, affine),
        save_nifti(tmp_path / "b.nii.gz", np.flip(first, 0).copy(), affine),
    ]
    project = Project.create(tmp_path / "p", channels=["a", "b"])
    project.add_cases([files], ids=["one"])
    path = write_report(project, tmp_path / "out")
    page = read_page(path)
    axial, coronal, sagittal = (np.asarray(picture) for picture in page.pictures)
    assert axial.shape == (MAX_PIXELS, MAX_PIXELS)
    assert coronal.shape == sagittal.shape == (20, MAX_PIXELS)
    assert axial[:, 10].max() == 0
    assert axial[:, -10].min() > 150
    sizes = re.findall(r'width="([\d.]+)" height="([\d.]+)" preserve', path.read_text("utf-8"))
    assert [(float(w), float(h)) for w, h in sizes] == [(150, 120), (150, 80), (120, 80)]


def test_outlines_are_drawn_between_voxels(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(0, 1, (40, 40, 40)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    label[20:30, 20:30, 20:30] = 1
    save_nifti(tmp_path / "i" / "a.nii.gz", image, np.diag([-2.0, -2.0, 2.0, 1.0]))
    save_nifti(tmp_path / "l" / "a.nii.gz", label, np.diag([-2.0, -2.0, 2.0, 1.0]))
    project = create_project(tmp_path / "p", tmp_path / "i", tmp_path / "l")
    path = write_report(project, tmp_path / "out")
    outline = re.search(r'<path d="M([^"]+)Z" fill="none"', path.read_text("utf-8"))
    assert outline is not None
    points = np.array([[float(v) for v in p.split()] for p in outline[1].split("L")])
    # The margin is 8 mm: four voxels before the box, whose sides are 20 mm.
    assert points.min(axis=0) == pytest.approx([8, 8], abs=0.01)
    assert points.max(axis=0) == pytest.approx([28, 28], abs=0.01)


def test_an_older_run_can_be_selected(project: Project, tmp_path: Path) -> None:
    old = write_predictions(project, ["scan-0"], shift=3)
    new = write_predictions(project, ["scan-0"], shift=1)
    project.runs.create("dycon", {"method": "dycon"})  # has not predicted anything
    out = tmp_path / "out"
    assert new.id in read_page(write_report(project, out, cases=["scan-0"])).text
    dice = float(read_rows(out)[0]["dice"])
    assert old.id in read_page(write_report(project, out, cases=["scan-0"], run=old.id)).text
    assert float(read_rows(out)[0]["dice"]) < dice


def test_training_cases_include_those_of_the_initial_weights(project: Project) -> None:
    first = project.runs.create("dycon", {"method": "dycon"})
    write_json(first.metrics_path, {"labeled": ["scan-0"]})
    second = project.runs.create("dycon", {"method": "dycon", "init_from": first.id})
    write_json(second.metrics_path, {"labeled": ["scan-1"]})
    project.set_split("scan-0", "validation")
    project.set_split("scan-3", "validation")
    uses = classify_label_use(project, second)
    assert [uses[f"scan-{i}"] for i in range(4)] == [
        *("training", "training", "labeled later", "validation")
    ]
    at_work = project.runs.create("dycon", {"method": "dycon"})
    assert classify_label_use(project, at_work)["scan-2"] == "training"


def test_invalid_requests_are_reported(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="Run 'missing' does not exist"):
        write_report(project, tmp_path / "out", run="missing")
    with pytest.raises(UserError, match="no case 'scan-77'"):
        write_report(project, tmp_path / "out", cases=["scan-77"])
    with pytest.raises(UserError, match="no cases to report"):
        write_report(Project.create(tmp_path / "empty"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_scans(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = real_data("ms-lesions")
    label = sorted((data / "labelsTr").iterdir())[0]
    case = label.name.removesuffix(".nii.gz")
    project = Project.create(tmp_path / "p", channels=["FLAIR", "T1"])
    scans = [data / "imagesTr" / f"{case}_000{channel}.nii.gz" for channel in (0, 1)]
    project.add_cases([scans], ids=[case], labels={case: label})
    path = write_report(project, tmp_path / "out")
    assert len(read_page(path).pictures) == 3
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("module", ["report", "nnunet"])
def test_importing_the_report_loads_neither_qt_nor_torch(module: str) -> None:
    code = f"import sys, json, napari_dycon.exports.{module}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not {"torch", "monai", "napari", "qtpy", "PyQt5"} & set(loaded)
