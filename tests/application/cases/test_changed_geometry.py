"""Labels and predictions of a scan whose file was replaced by one of another geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

from napari_dycon.application.cases.loading import load_case
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.errors import GeometryError
from napari_dycon.project.store import Project


def test_a_label_is_not_shown_on_a_scan_whose_geometry_changed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    file = save_nifti(tmp_path / "scan.nii.gz", noise)
    project = Project.create(tmp_path / "p")
    project.add_cases([file])
    project.labels.save("scan", np.ones((7, 6, 5), np.uint8))
    assert load_case(project, "scan").case.label.all()
    save_nifti(file, noise, np.diag([3.0, 3.0, 3.0, 1.0]))
    with pytest.raises(GeometryError, match="does not fit"):
        load_case(project, "scan")


def test_a_prediction_of_a_scan_whose_geometry_changed_is_reported_and_not_shown(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    file = save_nifti(tmp_path / "scan.nii.gz", noise)
    project = Project.create(tmp_path / "p")
    project.add_cases([file])
    run = project.runs.create("dycon", {})
    heat = np.zeros((7, 6, 5), np.float32)
    project.predictions.write(run.id, "scan", heat.astype(np.uint8), heat, heat)
    assert load_case(project, "scan").case.prediction is not None
    save_nifti(file, noise, np.diag([1.0, 1.0, 3.0, 1.0]))
    view = load_case(project, "scan").case
    assert view.prediction is None
    assert "does not fit scan.nii.gz" in view.notes[-1]


def test_a_label_of_a_scan_whose_geometry_changed_is_not_trained_on(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    file = save_nifti(tmp_path / "scan.nii.gz", noise)
    project = Project.create(tmp_path / "p")
    project.add_cases([file])
    label = np.zeros((12, 12, 12), np.uint8)
    label[3:8, 3:8, 3:8] = 1
    project.labels.save("scan", label)
    save_nifti(file, noise, np.diag([3.0, 3.0, 3.0, 1.0]))
    with pytest.raises(GeometryError, match="does not fit"):
        list(train(project, make_config("dycon", device="cpu", steps=1)))
