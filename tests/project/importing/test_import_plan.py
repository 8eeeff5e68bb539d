"""The content of a new project is decided before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.nifti_files import SHAPE, save_nifti, save_scan

from napari_dycon.project.importing.create_project import create_from_plan
from napari_dycon.project.importing.import_plan import plan_import


def test_a_plan_writes_no_file_and_can_be_executed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for seed, name in enumerate("ab"):
        save_scan(tmp_path / "images" / f"{name}.nii.gz", seed)
    label = np.zeros(SHAPE, np.uint8)
    label[0, 0, 0] = 3
    (tmp_path / "labels").mkdir()
    save_nifti(tmp_path / "labels" / "b.nii.gz", label)
    before = sorted(tmp_path.rglob("*"))
    plan = plan_import(tmp_path / "images", tmp_path / "labels")
    assert sorted(tmp_path.rglob("*")) == before
    assert [scan.name for scan in plan.scans] == ["a", "b"]
    assert ([c.value for c in plan.classes], list(plan.channels)) == ([3], ["image"])
    assert list(plan.labels) == ["b"]
    project = create_from_plan(tmp_path / "project", plan)
    assert [(case.id, case.status) for case in project.cases] == [
        ("a", "unlabeled"), ("b", "labeled"),
    ]  # fmt: skip
