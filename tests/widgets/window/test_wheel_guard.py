"""The wheel scrolls the tabs and changes no setting under the mouse."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QScrollArea,
    QScrollBar,
)

pytestmark = pytest.mark.gui


def turn_wheel_down(widget: Any) -> None:
    position = QPointF(widget.width() / 2, widget.height() / 2)
    QApplication.sendEvent(
        widget,
        QWheelEvent(
            position,
            QPointF(widget.mapToGlobal(position.toPoint())),
            QPoint(0, 0),
            QPoint(0, -120),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        ),
    )


def read_value(control: Any) -> Any:
    return control.currentIndex() if isinstance(control, QComboBox) else control.value()


def list_controls(section: Any) -> list[Any]:
    kinds = (QComboBox, QAbstractSlider, QAbstractSpinBox)
    found = [control for kind in kinds for control in section.findChildren(kind)]
    return [control for control in found if not isinstance(control, QScrollBar)]


def test_the_wheel_changes_no_setting(opened_panel: Any, qtbot: Any) -> None:
    _, panel = opened_panel
    for section in (panel.annotate, panel.train, panel.review):
        panel.sections.show_section(section)
        qtbot.wait(50)
        controls = list_controls(section)
        assert controls
        for control in controls:
            control.clearFocus()
            value = read_value(control)
            turn_wheel_down(control)
            assert read_value(control) == value


def test_the_wheel_over_a_list_scrolls_the_tab(opened_panel: Any, qtbot: Any) -> None:
    _, panel = opened_panel
    panel.sections.show_section(panel.train)
    scroll_area = panel.train.method
    while not isinstance(scroll_area, QScrollArea):
        scroll_area = scroll_area.parentWidget()
    scroll_bar = scroll_area.verticalScrollBar()
    panel.train.setMinimumHeight(2000)
    qtbot.waitUntil(lambda: scroll_bar.maximum() > 1000)
    scroll_bar.setValue(0)
    turn_wheel_down(panel.train.method)
    assert scroll_bar.value() > 0
    panel.train.setMinimumHeight(0)
