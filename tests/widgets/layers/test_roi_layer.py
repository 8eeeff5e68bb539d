"""The region that limits growing, drawn with the mouse in the real window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.key_presses import press_key
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_dycon.project.store import Project

pytestmark = pytest.mark.gui
SHIFT = Qt.KeyboardModifier.ShiftModifier
NONE = Qt.KeyboardModifier.NoModifier
LEFT = Qt.MouseButton.LeftButton


class Mouse:
    """A person's mouse and keys over the canvas."""

    def __init__(self, viewer: Any, panel: Any, qtbot: Any) -> None:
        self.viewer, self.panel, self.qtbot = viewer, panel, qtbot
        self.session, self.roi = panel.session, panel.layers.roi
        self.canvas = viewer.window._qt_viewer.canvas

    def press(self, key: Any, modifier: Any = NONE) -> None:
        press_key(self.viewer, key, modifier)
        self.qtbot.wait(50)

    def at(self, *voxel: float) -> QPoint:
        """Where a voxel lies on the canvas."""
        scan = next(v for k, v in self.canvas.layer_to_visual.items() if k.name == "scan-3")
        place = [voxel[axis] + 0.5 for axis in reversed(self.viewer.dims.displayed)]
        found = scan.node.transforms.get_transform("visual", "canvas").map([*place, 0, 1])
        return QPoint(*(round(float(c)) for c in (found / found[3])[:2]))

    def drag(self, start: tuple[float, ...], end: tuple[float, ...]) -> None:
        native = self.canvas.native
        a, b = self.at(*start), self.at(*end)
        QTest.mouseMove(native, a)
        QTest.mousePress(native, LEFT, NONE, a)
        self.qtbot.wait(30)
        for step in (1, 2, 3):
            place = QPointF(a + (b - a) * step / 3)
            event = QMouseEvent(
                QEvent.Type.MouseMove, place, QPointF(native.mapToGlobal(place.toPoint())),
                Qt.MouseButton.NoButton, LEFT, NONE,
            )  # fmt: skip
            QApplication.sendEvent(native, event)
            self.qtbot.wait(30)
        QTest.mouseRelease(native, LEFT, NONE, b)
        self.qtbot.wait(50)


def show_strokes(opened: Any, project: Project, qtbot: Any) -> Mouse:
    """Show scan-3, with a stroke in slices 9 and 10."""
    viewer, panel = opened
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-3")
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    panel.session.case.label[9:11, 9:12, 9:12] = 1
    panel.layers.go_to_slice(10, 0)
    qtbot.wait(300)
    return Mouse(viewer, panel, qtbot)


@pytest.fixture
def mouse(shared_window: Any, project: Project, qtbot: Any) -> Mouse:
    """Mouse of a window that the tests share."""
    return show_strokes(shared_window, project, qtbot)


@pytest.fixture
def own_mouse(window: Callable[[], Any], project: Project, qtbot: Any) -> Mouse:
    """Mouse of a window whose panel the test may close."""
    return show_strokes(window(), project, qtbot)


def is_near(box: Any, *wanted: tuple[int, int]) -> bool:
    """Whether a box is where the mouse drew it, but for a voxel."""
    return all(
        abs(span.start - a) <= 1 and abs(span.stop - b) <= 1
        for span, (a, b) in zip(box, wanted, strict=True)
    )


def test_a_box_can_be_drawn_edited_and_removed(mouse: Mouse) -> None:
    viewer, session, roi = mouse.viewer, mouse.session, mouse.roi
    tools = mouse.panel.annotate.tools.roi_controls
    assert tools.draw_button.text() == "Draw region"
    assert "no region is drawn" in tools.remove_button.toolTip()
    mouse.press(Qt.Key.Key_G, SHIFT)
    assert tools.draw_button.isChecked()
    mouse.drag((10, 4, 3), (10, 16, 14))
    assert is_near(session.annotation.roi, (0, 18), (4, 17), (3, 15))  # 25 mm of margin
    assert not roi.is_editing
    assert viewer.layers.selection.active.name == "label"
    layer = roi.layer
    assert layer.metadata["napari_dycon"]["case"] == "scan-3"
    assert layer.metadata["napari_dycon"]["role"] == "roi"
    assert tuple(layer.scale) == tuple(viewer.layers["label"].scale)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert viewer.dims.nsteps == mouse.panel.session.case.label.shape

    tools.first_slice.setValue(9)  # counted from 1
    tools.last_slice.setValue(13)
    assert session.annotation.roi[0] == slice(8, 13)
    for index, shown in ((8, 1), (12, 1), (13, 0), (7, 0)):
        mouse.panel.layers.go_to_slice(index, 0)
        assert len(layer.data) == shown
        assert layer.bounding_box.visible == bool(shown)
        assert not any(layer.edge_width)  # the outline is drawn otherwise
    assert "slices 9 to 13" in mouse.panel.message_label.text()
    mouse.press(Qt.Key.Key_G, SHIFT)  # a slice that does not show it
    mouse.drag((7, 8, 8), (7, 18, 12))
    assert is_near(session.annotation.roi, (7, 13), (4, 19), (3, 15))

    viewer.dims.order = (1, 0, 2)
    mouse.panel.layers.go_to_slice(10, 1)
    assert (tools.first_slice.value(), tools.last_slice.value()) == (
        session.annotation.roi[1].start + 1,
        session.annotation.roi[1].stop,
    )
    assert np.ptp(layer.data[0], axis=0)[0] == 6
    viewer.dims.order = (0, 1, 2)
    mouse.panel.layers.go_to_slice(10, 0)

    tools.draw_button.click()
    assert str(layer.mode) == "select"
    before = session.annotation.roi
    middle = (before[1].start + 3, before[2].start + 3)
    mouse.drag((10, *middle), (10, middle[0] - 2, middle[1] + 2))
    assert is_near(
        session.annotation.roi,
        (7, 13),
        (before[1].start - 2, before[1].stop - 2),
        (before[2].start + 2, before[2].stop + 2),
    )
    assert roi.is_editing
    mouse.press(Qt.Key.Key_Delete)
    assert session.annotation.roi is None
    mouse.qtbot.waitUntil(lambda: "region" not in viewer.layers, timeout=20_000)
    assert viewer.layers.selection.active.name == "label"


def test_growing_stays_in_the_box_and_is_one_step_of_undo(mouse: Mouse) -> None:
    session, label = mouse.session, mouse.panel.layers.find_layer("label")
    before = session.case.label.copy()
    mouse.press(Qt.Key.Key_G, SHIFT)
    mouse.drag((10, 3, 3), (10, 12, 14))
    mouse.press(Qt.Key.Key_G)
    mouse.qtbot.waitUntil(lambda: session.annotation.has_proposal, timeout=20_000)
    assert np.array_equal(session.case.label, before)
    mouse.press(Qt.Key.Key_G, SHIFT)  # with the box in hand, too
    assert mouse.roi.is_editing
    mouse.press(Qt.Key.Key_A)
    changed = session.case.label != before
    assert changed.sum() > 20
    changed[session.annotation.roi] = False
    assert not changed.any()
    label.undo()
    assert np.array_equal(session.case.label, before)
    session.flush()
    assert set(np.unique(session.project.labels.read("scan-3"))) == {1, 255}


def test_a_click_draws_no_box_and_an_empty_layer_is_removed(mouse: Mouse) -> None:
    mouse.press(Qt.Key.Key_G, SHIFT)
    QTest.mouseClick(mouse.canvas.native, LEFT, NONE, mouse.at(10, 8, 8))
    mouse.qtbot.wait(50)
    assert mouse.session.annotation.roi is None
    assert "rectangle is too small" in mouse.panel.message_label.text()
    assert mouse.roi.is_editing  # the next drag draws
    mouse.press(Qt.Key.Key_G, SHIFT)
    mouse.qtbot.waitUntil(lambda: "region" not in mouse.viewer.layers, timeout=20_000)


def test_the_box_is_removed_with_its_case_and_layer(own_mouse: Mouse) -> None:
    mouse = own_mouse
    session = mouse.session
    mouse.press(Qt.Key.Key_G, SHIFT)
    mouse.drag((10, 4, 3), (10, 10, 14))
    mouse.viewer.layers.remove("region")
    assert session.annotation.roi is None
    mouse.press(Qt.Key.Key_G, SHIFT)
    mouse.drag((10, 4, 3), (10, 10, 14))
    session.show_case("scan-4")
    mouse.qtbot.waitUntil(lambda: session.case.id == "scan-4", timeout=20_000)
    mouse.qtbot.waitUntil(lambda: "region" not in mouse.viewer.layers, timeout=20_000)
    assert session.annotation.roi is None
    assert mouse.viewer.layers.selection.active.name == "label"
    session.annotation.set_roi((slice(2, 9), slice(2, 9), slice(2, 9)))  # by a script
    assert mouse.viewer.layers["region"].metadata["napari_dycon"]["case"] == "scan-4"
    mouse.panel.release()  # with a box in place
    assert "region" not in mouse.viewer.layers


def test_the_box_is_shown_completely_and_not_editable_in_3d(mouse: Mouse) -> None:
    mouse.press(Qt.Key.Key_G, SHIFT)
    mouse.drag((10, 4, 3), (10, 10, 14))
    tools = mouse.panel.annotate.tools.roi_controls
    mouse.viewer.dims.ndisplay = 3
    assert not tools.draw_button.isEnabled()
    assert "switch to the 2D view" in tools.draw_button.toolTip()
    assert len(mouse.roi.layer.data) == 2
    said: list[str] = []
    mouse.panel.session.message.connect(lambda _, text: said.append(text))
    mouse.press(Qt.Key.Key_G, SHIFT)
    assert any("2D view" in text for text in said)
    mouse.viewer.dims.ndisplay = 2
    assert tools.draw_button.isEnabled()
    assert len(mouse.roi.layer.data) == 1
