"""Drawing, keys and navigation in the real window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_dycon.project.store import Project
from napari_dycon.widgets.window.shortcuts import ShortcutsDialog

pytestmark = pytest.mark.gui
# In names of actions of layers that nobody labels on.
ELSEWHERE = ("points", "shape", "vertex", "plane", "_add_", "in_slice", "direct", "select_mode")
Window = Callable[[], Any]


@pytest.fixture
def opened(window: Window, project: Project, qtbot: Any) -> Any:
    """Window on a project with a made-up prediction of scan-3, which is in view."""
    run = project.runs.create("dycon", {})
    shape = project.read_image("scan-3").shape
    mask = np.zeros(shape, np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    mask[15:18, 15:18, 14:17] = 1
    uncertainty = np.full(shape, 0.01, np.float32)
    uncertainty[4:6, 4:6, 4:8] = 0.9
    uncertainty[14:16, 14:16, 14:16] = 0.9
    project.predictions.write(run.id, "scan-3", mask, uncertainty, uncertainty / 2)
    viewer, panel = window()
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-3")
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    qtbot.waitUntil(lambda: panel.strip.profile is not None, timeout=20_000)
    # Overlays come one a turn of the event loop, this one last.
    qtbot.waitUntil(lambda: panel.layers.find_layer("disagreement") is not None, timeout=20_000)
    return viewer, panel


def proposed(layers: Any) -> bool:
    layer = layers.find_layer("proposal")
    return layer is not None and layer.visible


def press(viewer: Any, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    QTest.keyClick(canvas, key, modifier)


def test_no_key_is_one_of_naparis_own(opened: Any) -> None:
    from napari.utils.shortcuts import default_shortcuts

    _viewer, panel = opened
    active = panel.layers.find_layer("label")
    theirs = set()
    for name, keys in default_shortcuts.items():
        kind = name.split(":")[1]
        if any(word in kind for word in ELSEWHERE):
            continue  # of layers that nobody labels on
        theirs |= {str(key) for key in keys}
    layer_keys = {str(key) for key in type(active).class_keymap} | set(map(str, theirs))
    for key in panel.shortcuts:
        wanted = key.key.replace("-", "+").replace("Control", "Ctrl")
        assert wanted not in layer_keys, key.key
        assert wanted.replace("Ctrl", "Control") not in layer_keys, key.key


def test_keys_fill_copy_grow_and_take_back(opened: Any, qtbot: Any) -> None:
    viewer, panel = opened
    session, layers = panel.session, panel.layers
    label = layers.find_layer("label")
    view = session.case
    label.data_setitem(np.nonzero(box(view.label.shape, 4)), 1)
    label.data_setitem(np.nonzero(box(view.label.shape, 12)), 1)
    before = view.label.copy()
    press(viewer, Qt.Key.Key_I)
    qtbot.waitUntil(lambda: (view.label[8] == 1).sum() > 40, timeout=20_000)
    label.undo()  # one step
    assert np.array_equal(view.label, before)

    layers.go_to_slice(5, 0)
    press(viewer, Qt.Key.Key_W)
    qtbot.waitUntil(lambda: (view.label[5] == 1).any(), timeout=20_000)
    assert np.array_equal(view.label[5], view.label[4])
    layers.go_to_slice(11, 0)
    press(viewer, Qt.Key.Key_W, Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: (view.label[11] == 1).any(), timeout=20_000)

    before = view.label.copy()
    press(viewer, Qt.Key.Key_G)
    qtbot.waitUntil(lambda: proposed(layers), timeout=20_000)
    assert panel.annotate.tools.accept_button.isVisibleTo(panel)
    assert np.array_equal(view.label, before)
    press(viewer, Qt.Key.Key_D)
    assert not proposed(layers)
    press(viewer, Qt.Key.Key_G)
    qtbot.waitUntil(lambda: proposed(layers), timeout=20_000)
    press(viewer, Qt.Key.Key_A)
    assert not proposed(layers)
    assert (view.label == 1).sum() > (before == 1).sum()
    label.undo()
    assert np.array_equal(view.label, before)


def box(shape: tuple[int, ...], number: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[number, 5:15, 5:13] = True
    return mask


def test_the_brush_reaches_only_the_picked_gray_values(opened: Any) -> None:
    _viewer, panel = opened
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


def test_the_brush_is_set_in_millimeters_and_follows_naparis_own(opened: Any) -> None:
    _viewer, panel = opened
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


def test_accepting_with_the_brush_copies_the_prediction_in_one_step(opened: Any) -> None:
    _viewer, panel = opened
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


def test_the_next_case_takes_over_the_layers_but_not_their_history(opened: Any, qtbot: Any) -> None:
    viewer, panel = opened
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


def test_no_mask_of_the_case_before_is_seen_and_a_slice_asked_for_stays(
    opened: Any, qtbot: Any
) -> None:
    _viewer, panel = opened
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


def test_places_strip_and_numbers_go_together(opened: Any, qtbot: Any) -> None:
    viewer, panel = opened
    press(viewer, Qt.Key.Key_N)
    assert panel.review.hotspot_label.text() == "Place 1 of 2, 1 seen"
    first = panel.layers.slice_index
    assert panel.strip.position_line.value() == first
    press(viewer, Qt.Key.Key_N)
    assert panel.review.hotspot_label.text() == "Place 2 of 2, 2 seen"
    assert panel.layers.slice_index != first
    press(viewer, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    assert panel.layers.slice_index == first
    panel.strip._go_to(17.2)
    assert panel.layers.slice_index == 17
    viewer.dims.order = (1, 0, 2)
    qtbot.waitUntil(lambda: panel.strip.profile.axis == 1, timeout=20_000)
    assert len(panel.strip.profile.annotated_fractions) == panel.session.case.image.shape[1]
    press(viewer, Qt.Key.Key_H)
    assert not panel.layers.find_layer("uncertainty").visible


def test_a_click_into_the_strip_goes_there(opened: Any, qtbot: Any) -> None:
    _viewer, panel = opened
    plot = panel.strip.plot
    wanted = plot.getPlotItem().vb.mapViewToScene(plot.getPlotItem().vb.viewRect().center())
    place = plot.mapFromScene(wanted)
    QTest.mouseClick(
        plot.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(int(place.x()), int(place.y()))
    )
    middle = (panel.session.case.image.shape[0] - 1) / 2
    qtbot.waitUntil(lambda: abs(panel.layers.slice_index - middle) <= 1, timeout=20_000)


def test_the_difference_appears_and_follows_the_label(opened: Any, qtbot: Any) -> None:
    viewer, panel = opened
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


def test_number_keys_choose_structures_and_the_card_lists_all(opened: Any, qtbot: Any) -> None:
    viewer, panel = opened
    panel.session.project.add_class("second")
    panel.session.cases_changed.emit()
    press(viewer, Qt.Key.Key_2, Qt.KeyboardModifier.ControlModifier)
    assert panel.layers.find_layer("label").selected_label == 2
    assert panel.annotate.structures.value == 2
    card = ShortcutsDialog(panel, panel.shortcuts)
    qtbot.addWidget(card)
    card.show()
    assert card.height() < 700


def test_the_list_sorts_filters_and_shows_what_is_next(opened: Any, qtbot: Any) -> None:
    _viewer, panel = opened
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


def test_keys_and_strip_go_with_the_panel(opened: Any) -> None:
    viewer, panel = opened
    assert any(widget is panel.strip for widget in viewer.window.dock_widgets.values())
    assert any(str(key) == "N" for key in viewer.keymap)
    panel.release()
    assert not any(str(key) == "N" for key in viewer.keymap)
    assert not any(widget is panel.strip for widget in viewer.window.dock_widgets.values())


def test_the_project_can_be_closed_with_the_brush_in_hand(opened: Any, qtbot: Any) -> None:
    viewer, panel = opened
    panel.annotate.brush.paint_button.click()
    panel.session.close_project()
    qtbot.wait(200)  # drawn without any layer
    assert not viewer.layers


def test_every_command_is_in_the_palette_and_works(opened: Any, qtbot: Any) -> None:
    from napari._app_model import get_app_model

    _viewer, panel = opened
    app = get_app_model()
    known = {name for name, _ in app.commands if name.startswith("napari-dycon.")}
    assert {"napari-dycon.fill_between", "napari-dycon.next_place"} <= known
    app.commands.execute_command("napari-dycon.next_place").result()
    assert panel.review.hotspot_label.text().startswith("Place 1 of 2")
    app.commands.execute_command("napari-dycon.accept_slice").result()
    index = panel.layers.slice_index
    assert np.array_equal(panel.session.case.label[index], panel.session.case.prediction[index])
    app.commands.execute_command("napari-dycon.accept_grown").result()  # tells, raises nothing
    assert "no proposal" in panel.message_label.text()


def test_preferences_decide_what_a_window_starts_with(
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


def test_orthogonal_views_paint_the_same_label_under_the_same_limits(
    opened: Any, qtbot: Any
) -> None:
    views = pytest.importorskip("napari_orthogonal_views.ortho_view_manager")
    from napari_dycon.widgets.layers.label_layer import CaseLabels
    from napari_dycon.widgets.window.orthogonal import toggle_views

    viewer, panel = opened
    toggle_views(viewer)
    manager = views._get_manager(viewer)
    qtbot.waitUntil(manager.is_shown, timeout=20_000)
    side = manager.right_widget.vm_container.viewer_model
    twin = next(layer for layer in side.layers if isinstance(layer, CaseLabels))
    panel.session.annotation.set_paint_range((140.0, 1e4))
    view = panel.session.case
    bright = np.argwhere(view.image.array > 150)
    place = tuple(int(c) for c in bright.mean(axis=0).round())
    saved: list[str] = []
    panel.session.label_saved.connect(saved.append)
    twin.brush_size = 30
    twin.paint(place, 1)
    painted = view.label == 1
    assert painted.any()
    assert (view.image.array[painted] >= 140).all()
    qtbot.waitUntil(lambda: saved == ["scan-3"], timeout=20_000)
    panel.session.show_case("scan-4")
    qtbot.waitUntil(lambda: panel.session.case.id == "scan-4", timeout=20_000)
    assert panel.session.project.labels.read("scan-3")[place] == 1
    toggle_views(viewer)
    qtbot.waitUntil(lambda: not manager.is_shown(), timeout=20_000)
    views.delete_and_cleanup(viewer)


def test_rounds_are_shown_side_by_side(opened: Any, qtbot: Any, picture: Any) -> None:
    viewer, panel = opened
    project = panel.session.project
    for number, labeled in enumerate((2, 4)):
        run = project.runs.create("dycon", {"method": "dycon"})
        run.append_event({"event": "started", "labeled": labeled})
        for step in range(1, 20):
            loss = {"supervised": 1 / step}
            run.append_event({"event": "step", "step": step, "parts": loss})
            mean = 0.7 + 0.1 * number - 0.5 / step
            run.append_event({"event": "validation", "step": step, "mean": mean})
        run.append_event({"event": "finished", "step": 19})
    panel.session.runs_changed.emit()
    rounds = panel.train.history
    qtbot.waitUntil(lambda: rounds.table.topLevelItemCount() == 2, timeout=20_000)
    assert rounds.table.topLevelItem(1).text(1) == "4"
    assert "still help" in rounds.summary_label.text()
    rounds.table.setCurrentItem(rounds.table.topLevelItem(0))
    assert len(rounds.plot.listDataItems()) == 2
    panel.tabs.setCurrentIndex(1)
    picture(viewer, "rounds")


def test_asking_for_a_click_twice_gets_one_click(opened: Any) -> None:
    viewer, panel = opened
    label = panel.layers.find_layer("label")
    label.mode = "paint"
    waiting = len(viewer.mouse_drag_callbacks)
    panel.annotate.brush.pick_button.click()
    panel.review.accept_component_button.click()
    assert len(viewer.mouse_drag_callbacks) == waiting + 1
    panel.layers._cancel_click()
    assert (len(viewer.mouse_drag_callbacks), label.mode) == (waiting, "paint")


def test_the_head_is_above_the_feet_in_every_view(opened: Any) -> None:
    viewer, _panel = opened
    camera = viewer.scene.camera
    assert str(camera.orientation2d[0]) == "down"  # axial: the back is below
    for order in ((2, 0, 1), (1, 0, 2)):
        viewer.dims.order = order
        assert str(camera.orientation2d[0]) == "up"
    viewer.dims.order = (0, 1, 2)
    assert str(camera.orientation2d[0]) == "down"
