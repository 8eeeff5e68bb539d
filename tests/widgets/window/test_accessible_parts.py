"""Dialogs, start page and messages: names, keyboard, and the contrast of what is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.controls import describe, list_controls
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QLabel,
    QTabBar,
    QWidget,
)

from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.export import ExportDialog
from napari_dycon.widgets.dialogs.new_project import NewProjectDialog
from napari_dycon.widgets.dialogs.removed_cases import RemovedCasesDialog
from napari_dycon.widgets.window.contrast import contrast_ratio
from napari_dycon.widgets.window.shortcuts import ShortcutsDialog

pytestmark = pytest.mark.gui
MIN_CONTRAST = 4.5  # WCAG 2.2, level AA, for text of normal size
SYMBOLS = "… ◀▶↶↷?⋯✕"  # say nothing to a screen reader


def make_dialogs(panel: Any, project: Project) -> Iterator[QWidget]:
    makers: tuple[Callable[[], QWidget], ...] = (
        lambda: ShortcutsDialog(panel, panel.shortcuts),
        lambda: NewProjectDialog(panel, None, panel.task_runner),
        lambda: ExportDialog(panel, project, panel.task_runner),
        lambda: RemovedCasesDialog(panel, []),
    )
    for make in makers:
        yield make()


def test_controls_of_dialogs_have_names_and_are_reached_by_the_keyboard(
    opened_panel: Any, project: Project, qtbot: Any
) -> None:
    _, panel = opened_panel
    for dialog in make_dialogs(panel, project):
        dialog.show()
        qtbot.wait(100)
        name = type(dialog).__name__
        controls = list(list_controls(dialog))
        assert controls, name
        unnamed = [
            (name, type(control).__name__, control.toolTip()[:60])
            for control in controls
            if not describe(control).strip(SYMBOLS) and not find_buddy(dialog, control)
        ]
        assert unnamed == []
        unreachable = [
            (name, describe(control))
            for control in controls
            if not control.focusPolicy() & Qt.FocusPolicy.TabFocus
        ]
        assert unreachable == []
        dialog.close()
        dialog.deleteLater()
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)


def find_buddy(dialog: QWidget, control: QWidget) -> bool:
    """Whether a label names a control, as rows of forms do."""
    return any(label.buddy() is control for label in dialog.findChildren(QLabel))


def test_controls_of_the_start_page_and_of_messages(example_panel: Any, qtbot: Any) -> None:
    _, panel = example_panel
    panel.session.message.emit("error", "The disk is full.")
    panel.session.close_project()
    panel.session.message.emit("error", "The disk is full.")
    qtbot.wait(100)
    parts = (panel.data.start_page, panel.message_label, panel.progress_row)
    controls = list(list_controls(*parts))
    assert len(controls) >= 8
    for control in controls:
        assert describe(control).strip(SYMBOLS), control.toolTip()
        assert control.focusPolicy() & Qt.FocusPolicy.TabFocus
    assert panel.message_label.text_label.accessibleName() == "Error: The disk is full."


def measure_contrast(widget: QWidget) -> float:
    """Contrast of the most frequent color of a widget and the one that differs most from it."""
    image = widget.grab().toImage()
    colors = Counter(
        image.pixelColor(x, y).name() for x in range(image.width()) for y in range(image.height())
    )
    background = colors.most_common(1)[0][0]
    return max(contrast_ratio(background, color) for color in colors)


def list_texts(*roots: QWidget) -> Iterator[QWidget]:
    """List the enabled widgets with text that are in sight."""
    for root in roots:
        for widget in root.findChildren(QWidget):
            is_text = isinstance(widget, (QLabel, QAbstractButton, QTabBar, QComboBox))
            text = getattr(widget, "text", lambda: "x")() if is_text else ""
            if text and widget.isEnabled() and not widget.visibleRegion().isEmpty():
                yield widget


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_texts_that_are_drawn_are_readable(
    opened_panel: Any, project: Project, qtbot: Any, theme: str
) -> None:
    viewer, panel = opened_panel
    viewer.theme = theme
    for level in ("info", "warning", "error"):
        panel.session.message.emit(level, "The disk is full.")
        qtbot.wait(50)
        assert measure_contrast(panel.message_label.text_label) >= MIN_CONTRAST, level
    panel.annotate.brush.paint_button.click()  # a highlighted one
    faint = []
    for index in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(index)
        qtbot.wait(150)
        for widget in list_texts(panel, panel.canvas_area.toolbar):
            if (contrast := measure_contrast(widget)) < MIN_CONTRAST:
                faint.append((type(widget).__name__, widget.text(), round(contrast, 1)))
    for dialog in make_dialogs(panel, project):
        dialog.show()
        qtbot.wait(150)
        for widget in list_texts(dialog):
            if (contrast := measure_contrast(widget)) < MIN_CONTRAST:
                faint.append((type(dialog).__name__, widget.text(), round(contrast, 1)))
        dialog.close()
        dialog.deleteLater()
    assert faint == []
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
