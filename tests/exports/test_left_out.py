"""What the command says of cases that it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_dycon.exports.selection import Reason, summarize_reasons
from napari_dycon.project.importing.create_project import create_project

Run = Callable[..., tuple[int, str, str]]


def test_reasons_follow_a_number_of_cases() -> None:
    reasons = [Reason.NOT_REVIEWED, Reason.NOT_REVIEWED, Reason.NO_LABEL]
    expected = "2 with a prediction that is not reviewed, 1 without label"
    assert summarize_reasons(reasons) == expected


def test_scans_that_are_no_series_are_explained_beside_unreviewed_predictions(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    project = create_project(tmp_path / "p", scans / "images", scans / "labels", ["box"])
    unlabeled = project.unlabeled_cases()[0].id
    shape = project.read_image(unlabeled).shape
    mask, heat = np.ones(shape, np.uint8), np.zeros(shape, np.float32)
    project.predictions.write(project.runs.create("dycon", {}).id, unlabeled, mask, heat, heat)
    code, _, err = run("export", project.path, "--format", "dicom-seg", "--out", tmp_path / "out")
    assert code == 2
    text = " ".join(err.split())
    assert "3 without original DICOM series" in text
    assert "Finish the unfinished ones, or include them with --include-unreviewed." in text
    assert "is not a DICOM series" in text
    assert "Export NIfTI instead." in text
    assert not (tmp_path / "out").exists()
