"""Annotation and review in the real window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.key_presses import press_key
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_dycon.engine.evaluation.label_comparison import difference_map
from napari_dycon.exports.selection import MaskOrigin, classify_label
from napari_dycon.project.acceptances import has_recorded_acceptance
from napari_dycon.project.runs.events import FinishedEvent, StartedEvent, StepEvent, ValidationEvent
from napari_dycon.widgets.layers import overlays

pytestmark = pytest.mark.gui

Window = Callable[[], Any]


def test_the_brush_paints_only_the_picked_intensities(example_panel: Any) -> None:
    _viewer, panel = example_panel
    view, label = panel.session.case, panel.layers.find_layer("label")
    bright = np.argwhere(view.image.array > 150)
    z, y, x = (int(c) for c in bright.mean(axis=0).round())
    panel.session.annotation.set_paint_range((140.0, 1e4))
    assert panel.annotate.brush.limit_checkbox.isChecked()
    panel.annotate.brush.diameter.setValue(40.0)
    layer_slice = view.image.array[z]
    label.paint((z, y, x), 1)
    painted = view.label[z] == 1
    assert painted.sum() > 20
    assert (layer_slice[painted] >= 140).all()
    label.undo()
    assert not (view.label == 1).any()
    label.paint((z, y, x), 0)  # background and removal are never limited
    assert (view.label[z] == 0).sum() > painted.sum()
    panel.annotate.brush.limit_checkbox.setChecked(False)
    assert panel.session.annotation.paint_range is None


def test_the_brush_size_is_in_millimeters_and_follows_that_of_napari(example_panel: Any) -> None:
    _viewer, panel = example_panel
    label, size = panel.layers.find_layer("label"), panel.annotate.brush.diameter
    finest = min(panel.session.case.image.spacing_mm[1:])
    size.setValue(11 * finest)
    before = panel.session.case.label.copy()
    label.paint((8, 10, 9), 1)
    changed = np.argwhere(panel.session.case.label != before)
    width = np.ptp(changed[:, 1:], axis=0) * panel.session.case.image.spacing_mm[1:]
    assert abs(width.max() + finest - 11 * finest) <= finest
    assert set(changed[:, 0]) == {8}
    label.undo()
    panel.annotate.brush.ball_checkbox.setChecked(True)
    label.paint((8, 10, 9), 1)
    assert len(set(np.argwhere(panel.session.case.label == 1)[:, 0])) > 3
    label.undo()
    label.brush_size = 4  # napari's slider
    assert size.value() == pytest.approx(5 * min(panel.session.case.image.spacing_mm), abs=0.05)


def test_accepting_with_the_brush_copies_the_prediction_in_one_step(example_panel: Any) -> None:
    _viewer, panel = example_panel
    view, label = panel.session.case, panel.layers.find_layer("label")
    before = view.label.copy()
    panel.layers.go_to_slice(6, 0)
    panel.layers.set_brush_mm(12.0)
    panel.review.accept_brush_button.click()
    label.paint((6, 8, 8), 1)
    touched = view.label[6] != 255
    assert touched.any()
    assert np.array_equal(view.label[6][touched], view.prediction[6][touched])
    assert {0, 1} <= set(np.unique(view.label[6][touched]).tolist())
    label.undo()
    assert np.array_equal(view.label, before)
    panel.annotate.brush.paint_button.click()  # paints freely again
    label.paint((6, 20, 2), 1)
    assert view.label[6, 20, 2] == 1


def test_a_label_that_was_accepted_by_brush_is_no_drawn_one(opened_panel: Any, qtbot: Any) -> None:
    _, panel = opened_panel
    session, label = panel.session, panel.layers.find_layer("label")
    project, case = session.project, session.case

    def find_origin() -> MaskOrigin:
        session.save_label()
        qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
        return classify_label(project, case.id, np.where(case.label == 255, 0, case.label))

    label.paint((6, 20, 2), 1)
    panel.review.accept_brush_button.click()
    assert find_origin() is MaskOrigin.DRAWN
    label.paint((6, 8, 8), 1)
    session.save_label()
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
    assert has_recorded_acceptance(project, case.id, case.label)
    assert find_origin() is MaskOrigin.CORRECTED
    label.undo()
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
    assert not has_recorded_acceptance(project, case.id, case.label)


def test_the_next_case_reuses_the_layers_but_not_their_history(
    example_panel: Any, qtbot: Any
) -> None:
    viewer, panel = example_panel
    before = {role: panel.layers.find_layer(role) for role in ("image", "label")}
    label = before["label"]
    label.mode = "paint"
    label.paint((8, 8, 8), 1)
    panel.session.show_case("scan-4")
    qtbot.waitUntil(lambda: panel.session.case.id == "scan-4", timeout=20_000)
    view = panel.session.case
    assert {role: panel.layers.find_layer(role) for role in before} == before
    assert label.mode == "paint"  # whoever paints goes on painting
    assert before["image"].data is view.image.array
    assert before["image"].name == "scan-4"
    assert label.data is view.label
    label.undo()
    label.redo()
    assert (view.label == 255).all()
    assert panel.session.project.labels.read("scan-3")[8, 8, 8] == 1
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=20_000)  # scan-4 has no prediction
    assert all(
        layer.metadata["napari_dycon"]["case"] == "scan-4"
        for layer in viewer.layers
        if "napari_dycon" in layer.metadata
    )
    label.paint((3, 3, 3), 1)
    panel.session.flush()
    assert panel.session.project.labels.read("scan-4")[3, 3, 3] == 1


def test_the_previous_mask_is_hidden_and_a_requested_slice_is_kept(
    example_panel: Any, qtbot: Any
) -> None:
    _viewer, panel = example_panel
    project, session, layers = panel.session.project, panel.session, panel.layers
    shape = project.read_image("scan-4").shape
    mask = np.ones(shape, np.uint8)
    nothing = np.zeros(shape, np.float32)
    project.predictions.write(project.runs.list()[0].id, "scan-4", mask, nothing, nothing)
    roles = ("prediction", "uncertainty", "disagreement")
    seen: list[list[float]] = []

    def shown(_: object) -> None:  # after the layers, which listen first
        seen.append([layers.find_layer(role).opacity for role in roles])
        layers.go_to_slice(3, 0)

    session.case_shown.connect(shown)
    session.show_case("scan-4")
    qtbot.waitUntil(lambda: bool(seen), timeout=20_000)
    session.case_shown.disconnect(shown)
    qtbot.waitUntil(lambda: layers.find_layer("disagreement").opacity > 0, timeout=20_000)
    assert seen == [[0.0, 0.0, 0.0]]
    assert [layers.find_layer(role).opacity for role in roles] == [layers.opacity[r] for r in roles]
    assert (layers.find_layer("prediction").data == 1).all()
    assert layers.slice_index == 3


def test_regions_strip_and_table_are_consistent(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    press_key(viewer, Qt.Key.Key_N)
    assert panel.review.hotspot_label.text().startswith("Region 1 of 2: ")
    first = panel.layers.slice_index
    assert panel.strip.position_line.value() == first
    press_key(viewer, Qt.Key.Key_N)
    assert panel.review.hotspot_label.text().startswith("Region 2 of 2: ")
    assert panel.layers.slice_index != first
    press_key(viewer, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    assert panel.layers.slice_index == first
    panel.strip._go_to(17.2)
    assert panel.layers.slice_index == 17
    viewer.dims.order = (1, 0, 2)
    qtbot.waitUntil(lambda: panel.strip.profile.axis == 1, timeout=20_000)
    assert len(panel.strip.profile.annotated_fractions) == panel.session.case.image.shape[1]
    press_key(viewer, Qt.Key.Key_H)
    assert not panel.layers.find_layer("uncertainty").visible


def test_a_click_into_the_strip_shows_that_slice(example_panel: Any, qtbot: Any) -> None:
    _viewer, panel = example_panel
    plot = panel.strip.plot
    wanted = plot.getPlotItem().vb.mapViewToScene(plot.getPlotItem().vb.viewRect().center())
    place = plot.mapFromScene(wanted)
    QTest.mouseClick(
        plot.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(int(place.x()), int(place.y()))
    )
    middle = (panel.session.case.image.shape[0] - 1) / 2
    qtbot.waitUntil(lambda: abs(panel.layers.slice_index - middle) <= 1, timeout=20_000)


def test_the_difference_appears_and_follows_the_label(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    panel.review.toggles["difference"].setChecked(True)
    qtbot.waitUntil(lambda: panel.layers.find_layer("difference") is not None, timeout=20_000)
    shown = panel.layers.find_layer("difference")
    assert (shown.data > 0).sum() == (panel.session.case.prediction > 0).sum()
    panel.session.accept_prediction()
    qtbot.waitUntil(lambda: not shown.data.any(), timeout=20_000)
    panel.review.toggles["difference"].setChecked(False)
    assert not shown.visible
    shown.visible = True  # the eye in napari's list of layers
    assert panel.review.toggles["difference"].isChecked()
    viewer.layers["uncertainty"].visible = False
    assert not panel.review.toggles["uncertainty"].isChecked()
    assert panel.layers.visible == panel.layers.visible | {"difference": True, "uncertainty": False}


def test_a_difference_that_is_computed_late_does_not_replace_a_newer_one(
    example_panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, panel = example_panel
    may_end, starts = threading.Event(), []

    def compute(label: Any, prediction: Any) -> Any:
        starts.append(label)
        if len(starts) == 1:
            may_end.wait(30)
        return difference_map(label, prediction)

    def is_empty() -> bool:
        shown = panel.layers.find_layer("difference")
        return shown is not None and not shown.data.any()

    monkeypatch.setattr(overlays, "difference_map", compute)
    panel.review.toggles["difference"].setChecked(True)
    qtbot.waitUntil(lambda: bool(starts), timeout=20_000)
    panel.session.accept_prediction()
    qtbot.waitUntil(is_empty, timeout=20_000)
    may_end.set()
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
    assert is_empty()


def test_the_list_sorts_filters_and_shows_the_next_case(example_panel: Any, qtbot: Any) -> None:
    _viewer, panel = example_panel
    rows = panel.data.case_list
    qtbot.waitUntil(lambda: rows.summaries.get("scan-3").suggestion is not None, timeout=20_000)
    qtbot.waitUntil(lambda: rows._items["scan-3"].text(2) == "1", timeout=20_000)
    assert "uncertainty" in rows._items["scan-3"].toolTip(2)
    rows.sortByColumn(2, Qt.SortOrder.AscendingOrder)
    assert rows.topLevelItem(0).text(0) == "scan-3"
    panel.data.filter_box.setCurrentText("Labeled")
    shown = [rows.topLevelItem(i) for i in range(rows.topLevelItemCount())]
    assert sorted(i.text(0) for i in shown if not i.isHidden()) == ["scan-0", "scan-1", "scan-2"]
    qtbot.waitUntil(lambda: not rows._items["scan-5"].icon(0).isNull(), timeout=20_000)


def test_the_project_can_be_closed_while_the_brush_is_active(
    example_panel: Any, qtbot: Any
) -> None:
    viewer, panel = example_panel
    panel.annotate.brush.paint_button.click()
    panel.session.close_project()
    qtbot.wait(200)  # drawn without any layer
    assert not viewer.layers


def test_preferences_set_the_initial_state_of_a_window(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_dycon.widgets.window.preferences import get_preferences

    settings = get_preferences()
    before = settings.annotate.brush_mm, settings.review.show_above, settings.train.minutes
    assert before == (6.0, 0.3, 10)
    try:
        settings.annotate.brush_mm, settings.review.show_above = 3.0, 0.5
        settings.train.minutes = 25
        _, panel = window()
        assert panel.annotate.brush.diameter.value() == 3.0
        assert panel.layers.overlays.threshold == 0.5
        assert panel.train.minutes.value() == 25
        with pytest.raises(ValueError, match="greater than or equal"):
            settings.annotate.brush_mm = -1.0
    finally:
        settings.annotate.brush_mm, settings.review.show_above = before[:2]
        settings.train.minutes = before[2]


def test_runs_are_shown_side_by_side(example_panel: Any, qtbot: Any, save_screenshot: Any) -> None:
    viewer, panel = example_panel
    project = panel.session.project
    for number, labeled in enumerate((2, 4)):
        run = project.runs.create("dycon", {"method": "dycon"})
        run.append_event(StartedEvent(labeled=labeled))
        for step in range(1, 20):
            loss = {"supervised": 1 / step}
            run.append_event(StepEvent(step=step, loss_terms=loss))
            mean = 0.7 + 0.1 * number - 0.5 / step
            run.append_event(ValidationEvent(step=step, mean=mean))
        run.append_event(FinishedEvent(step=19))
    panel.session.runs_changed.emit()
    rounds = panel.train.history
    qtbot.waitUntil(lambda: rounds.table.topLevelItemCount() == 2, timeout=20_000)
    assert rounds.table.topLevelItem(1).text(1) == "4"
    assert rounds.summary_label.text().startswith("Dice 0.67 → 0.77 on ")
    assert "help" not in rounds.summary_label.text()  # no verdict
    rounds.table.setCurrentItem(rounds.table.topLevelItem(0))
    assert len(rounds.dice_plot.listDataItems()) == 2
    panel.tabs.setCurrentIndex(1)
    save_screenshot(viewer, "rounds")


def test_a_pick_ends_with_escape_or_another_case(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    layers, label = panel.layers, panel.layers.find_layer("label")
    label.mode = "paint"
    panel.annotate.brush.pick_button.click()
    assert str(label.mode) == "pan_zoom"
    press_key(viewer, Qt.Key.Key_Escape)
    assert not layers.is_waiting_for_click
    assert str(label.mode) == "paint"
    panel.review.accept_component_button.click()
    panel.session.show_case("scan-4")
    qtbot.waitUntil(lambda: panel.session.case.id == "scan-4", timeout=20_000)
    assert not layers.is_waiting_for_click
    assert str(layers.find_layer("label").mode) == "paint"


def test_a_proposal_is_announced_until_another_case_is_opened(
    example_panel: Any, qtbot: Any
) -> None:
    _, panel = example_panel
    session, said = panel.session, []
    session.message.connect(lambda _, text: said.append(text))
    panel.annotate.collapsible.collapse(animate=False)
    session.case.label[9:11, 9:12, 9:12] = 1
    session.case.label[9:11, 1:3, 1:3] = 0
    session.annotation.grow()
    qtbot.waitUntil(lambda: session.annotation.has_proposal, timeout=20_000)
    assert said[-1] == "Proposal ready: Accept (A) or Discard (D)."
    assert panel.annotate.collapsible.isExpanded()
    session.show_case("scan-4")
    qtbot.waitUntil(lambda: session.case.id == "scan-4", timeout=20_000)
    assert "The proposal for scan-3 was discarded." in said


def test_a_repeated_pick_request_takes_one_click(example_panel: Any) -> None:
    viewer, panel = example_panel
    label = panel.layers.find_layer("label")
    label.mode = "paint"
    waiting = len(viewer.mouse_drag_callbacks)
    panel.annotate.brush.pick_button.click()
    panel.review.accept_component_button.click()
    assert len(viewer.mouse_drag_callbacks) == waiting + 1
    panel.layers._cancel_click()
    assert (len(viewer.mouse_drag_callbacks), label.mode) == (waiting, "paint")


def test_the_head_is_at_the_top_of_every_view(example_panel: Any) -> None:
    viewer, _panel = example_panel
    camera = viewer.scene.camera
    assert str(camera.orientation2d[0]) == "down"  # axial: the back is below
    for order in ((2, 0, 1), (1, 0, 2)):
        viewer.dims.order = order
        assert str(camera.orientation2d[0]) == "up"
    viewer.dims.order = (0, 1, 2)
    assert str(camera.orientation2d[0]) == "down"


def test_slices_and_window_of_a_case_are_as_they_were_left(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    session, window = panel.session, panel.layers.intensity_window

    def show(case_id: str) -> None:
        session.show_case(case_id)
        qtbot.waitUntil(lambda: session.case.id == case_id, timeout=20_000)
        qtbot.waitUntil(lambda: not panel.layers._deferred_steps._steps, timeout=20_000)

    center = tuple(viewer.dims.current_step)
    panel.layers.go_to_slice(5, 0)
    window.set_range(60, 180)
    place = tuple(viewer.dims.current_step)
    show("scan-4")
    assert tuple(viewer.dims.current_step) == center != place
    assert window.range != (60, 180)
    assert window.preset == "Automatic"
    show("scan-3")
    assert tuple(viewer.dims.current_step) == place
    assert window.range == (60, 180)
    window.choose_preset("Automatic")
    automatic = window.range
    show("scan-4")
    show("scan-3")
    assert window.range == automatic
