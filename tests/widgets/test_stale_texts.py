"""Texts are about the case and the state that are shown, not about those before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_dycon.project.models import Status
from napari_dycon.project.store import Project
from napari_dycon.widgets.annotate.completion import SAVING_NOTE
from napari_dycon.widgets.review.section import HINT, PREDICT_HINT, TRAIN_HINT
from napari_dycon.widgets.train.curves import NO_VALIDATION_TEXT, TOO_FEW_LABELS_TEXT

pytestmark = pytest.mark.gui


@pytest.fixture
def panel(example_panel: Any) -> Any:
    return example_panel[1]


def show(panel: Any, qtbot: Any, case: str) -> None:
    panel.session.show_case(case)
    qtbot.waitUntil(lambda: panel.session.case.id == case, timeout=20_000)


def test_the_note_of_the_last_save_is_about_the_case_shown(panel: Any, qtbot: Any) -> None:
    session, note = panel.session, panel.annotate.completion.saved_label
    session.case.label[5, 5, 5] = 1
    session.flush()
    assert note.text().startswith("Saved ")
    assert note.text() != SAVING_NOTE
    assert "scan-3" in note.toolTip()
    panel.layers.axis_changed.emit(0)  # the same case
    assert "scan-3" in note.toolTip()
    show(panel, qtbot, "scan-4")
    assert (note.text(), note.toolTip()) == (SAVING_NOTE, "")
    session.state.label_saved.emit("scan-3")  # whose save ends late
    assert (note.text(), note.toolTip()) == (SAVING_NOTE, "")


def test_the_hint_speaks_of_a_prediction_only_if_there_is_one(panel: Any, qtbot: Any) -> None:
    hint, session = panel.review.hint_label, panel.session
    assert hint.text() == HINT
    show(panel, qtbot, "scan-4")
    assert hint.text() == TRAIN_HINT  # no run has weights
    session.project.runs.list()[-1].weights_path.write_bytes(b"weights")
    session.runs_changed.emit()
    assert hint.text() == PREDICT_HINT
    session.close_project()
    assert hint.text() == ""


def test_the_only_labeled_case_is_not_suggested_for_validation(panel: Any) -> None:
    session, note = panel.session, panel.train.curves.dice_note
    session.cases_changed.emit()
    assert note.text() == NO_VALIDATION_TEXT
    labeled = [case for case in session.project.cases if case.status is not Status.UNLABELED]
    for case in labeled[1:]:
        session.project.set_status(case.id, Status.UNLABELED)
    session.cases_changed.emit()
    assert note.text() == TOO_FEW_LABELS_TEXT


def test_the_status_bar_is_cleared_with_the_case_and_the_view(
    example_panel: Any, qtbot: Any
) -> None:
    viewer, panel = example_panel
    views = panel.canvas_area.views
    views.show_side_views(True)
    qtbot.waitUntil(lambda: len(views.side_views) > 0, timeout=10_000)
    view = views.side_views[0]
    qtbot.waitUntil(lambda: view.geometry.zoom > 0, timeout=10_000)
    width, height = view.canvas.width(), view.canvas.height()
    views.gestures.hover(view, width / 2, height / 2)
    assert "slice" in str(viewer.status)
    views.gestures.leave(view)
    assert not viewer.status
    viewer.status = "slice 3 of another case"
    show(panel, qtbot, "scan-4")
    assert not viewer.status
    views.show_side_views(False)


@pytest.mark.parametrize("are_labeled", [False, True])
def test_a_new_project_opens_its_first_case(
    shared_window: Any, scans: Path, tmp_path: Path, qtbot: Any, are_labeled: bool
) -> None:
    _, panel = shared_window
    session = panel.session
    (scans / "images" / "broken.nii.gz").write_bytes(b"no scan")
    labels = scans / "labels"
    session.create_project(
        tmp_path / "p", scans / "images", labels if are_labeled and labels.is_dir() else None
    )
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    project: Project = session.project
    unlabeled = [case.id for case in project.cases if case.status is Status.UNLABELED]
    assert session.case.id == (unlabeled or [project.cases[0].id])[0]
    qtbot.waitUntil(lambda: panel.layers.find_layer("label") is not None, timeout=20_000)
    # What was said of the import is still there.
    assert "broken" in panel.message_label.text(), panel.message_label._recent
