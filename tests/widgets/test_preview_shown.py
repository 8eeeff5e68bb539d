"""Everything that shows a preview, or a number of it, says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.application.training.status import RunStatus
from napari_dycon.widgets.review.comparison_table import COLUMNS
from napari_dycon.widgets.review.section import HINT, PREVIEW_HINT

pytestmark = pytest.mark.gui


def write_preview(panel: Any, case: str) -> str:
    project = panel.session.require_project()
    run = project.runs.create("supervised", {})
    grid = project.read_image(case)
    mask = np.zeros(grid.shape, np.uint8)
    mask[2:8, 2:8, 2:8] = 1
    project.predictions.write_provisional(
        run.id, case, mask, np.full(grid.shape, 0.4, np.float32), stage="preview", reference=grid
    )
    return str(run.id)


def get_headers(panel: Any) -> tuple[str, ...]:
    item = panel.review.table.headerItem()
    return tuple(item.text(column) for column in range(item.columnCount()))


def test_a_preview_is_marked_wherever_it_is_shown(example_panel: Any, qtbot: Any) -> None:
    _, panel = example_panel
    session, view = panel.session, panel.canvas_area.views.main_view
    assert get_headers(panel) == COLUMNS
    run = write_preview(panel, "scan-1")
    session.show_case("scan-1")
    qtbot.waitUntil(lambda: session.case.id == "scan-1", timeout=20_000)
    assert session.case.is_preview
    assert panel.review.source_label.text().startswith(f"Preview during training (run {run})")
    assert panel.review.hint_label.text() == PREVIEW_HINT
    assert get_headers(panel)[2:] == ("Preview (ml)", "Dice")
    assert panel.review.table.headerItem().toolTip(3) == "Of the preview during training"
    qtbot.waitUntil(
        lambda: (
            panel.layers.find_layer("prediction").name == "prediction (preview during training)"
        ),
        timeout=10_000,
    )
    qtbot.waitUntil(
        lambda: panel.layers.find_layer("uncertainty").name.endswith("(preview during training)"),
        timeout=10_000,
    )
    qtbot.waitUntil(
        lambda: view.annotations.content.note == "Preview during training", timeout=10_000
    )
    corner = [2 * spacing for spacing in session.case.image.spacing_mm]
    assert session.case.label[2, 2, 2] != 1
    assert "preview: box" in panel.layers.describe_position(corner, 0)
    # The list has no Dice of it: nothing but the preview exists.
    assert panel.data.case_list.summaries.get("scan-1").dice_text == ""
    offers: list[str] = []
    session.state.undo_offered.connect(lambda text, _: offers.append(text))
    panel.review.accept_button.click()
    assert offers == ["Preview during training accepted for the whole scan; scan marked complete."]

    session.show_case("scan-3")
    qtbot.waitUntil(lambda: session.case.id == "scan-3", timeout=20_000)
    assert panel.review.hint_label.text() == HINT
    assert get_headers(panel) == COLUMNS
    assert panel.review.table.headerItem().toolTip(3) == ""
    qtbot.waitUntil(
        lambda: panel.layers.find_layer("prediction").name == "prediction", timeout=10_000
    )
    qtbot.waitUntil(lambda: view.annotations.content.note == "", timeout=10_000)


def test_the_choice_is_offered_while_a_training_with_previews_runs(
    example_panel: Any, qtbot: Any
) -> None:
    _, panel = example_panel
    session, checkbox = panel.session, panel.review.preview_checkbox
    controller = session.run_controller
    panel.tabs.setCurrentIndex(2)
    assert not checkbox.isVisible()
    finished = session.case.run
    run = write_preview(panel, "scan-3")
    controller._run = session.project.runs.get(run)
    session.state.set_run_status(RunStatus("training", run, text="Training"))
    assert checkbox.isVisible()
    assert checkbox.isEnabled()
    assert session.case.run == finished
    checkbox.click()
    qtbot.waitUntil(lambda: session.case.is_preview, timeout=10_000)
    assert session.project.runs.get(run).read_control().preview == "scan-3"
    session.show_case("scan-4")  # it has neither
    qtbot.waitUntil(lambda: session.case.id == "scan-4", timeout=20_000)
    assert session.case.prediction is None
    session.show_case("scan-3")
    qtbot.waitUntil(lambda: session.case.id == "scan-3" and session.case.is_preview, timeout=20_000)
    checkbox.click()
    qtbot.waitUntil(lambda: session.case.run == finished, timeout=10_000)
    assert session.project.runs.get(run).read_control().preview is None
    checkbox.click()
    qtbot.waitUntil(lambda: session.case.is_preview, timeout=10_000)
    controller.detach()
    qtbot.waitUntil(lambda: session.case.run == finished, timeout=10_000)
    assert not checkbox.isVisible()
    assert not checkbox.isChecked()


def test_the_brush_copies_the_prediction_that_is_shown(example_panel: Any, qtbot: Any) -> None:
    _, panel = example_panel
    session = panel.session
    panel.review.accept_brush_button.click()
    label = panel.layers.find_layer("label")
    assert label.limits.reference_label is session.case.prediction
    write_preview(panel, "scan-3")
    session.review.preview_of = session.project.runs.list()[-1].id
    qtbot.waitUntil(lambda: session.case.is_preview, timeout=10_000)
    assert label.limits.reference_label is session.case.prediction
    session.review.preview_of = None


def test_numbers_of_another_case_do_not_stay_until_its_own_are_known(
    example_panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, panel = example_panel
    table, session = panel.review.table, panel.session
    qtbot.waitUntil(lambda: table.topLevelItemCount() == 1, timeout=10_000)
    held: list[Any] = []
    with monkeypatch.context() as holding:
        holding.setattr(session.task_runner, "submit_when_idle", lambda *task: held.append(task))
        session.case.prediction = session.case.prediction.copy()
        session.prediction_changed.emit(session.case)
        assert table.topLevelItemCount() == 0
    for task in held:
        session.task_runner.submit_when_idle(*task)
    qtbot.waitUntil(lambda: table.topLevelItemCount() == 1, timeout=10_000)
