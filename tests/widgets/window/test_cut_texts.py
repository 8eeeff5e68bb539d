"""No text is cut, at three sizes and in both themes; what is shortened has a tooltip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers.cut_texts import list_cut_texts
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QLabel, QPushButton, QWidget

from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.export import ExportDialog
from napari_dycon.widgets.dialogs.new_project import NewProjectDialog
from napari_dycon.widgets.layers.napari_internals import get_qt_viewer
from napari_dycon.widgets.window.labels import ElidedLabel
from napari_dycon.widgets.window.shortcuts import ShortcutsDialog

pytestmark = pytest.mark.gui
SIZES = ((960, 540), (1366, 768), (1600, 1000))
LONG_MESSAGE = (
    "Scan marked complete. Slices 1–24, 26–27, 67–70 and 72–88 were not annotated: background now, "
    "and they count as examined in the next training, which starts from the weights of the last."
)


def arrange(viewer: Any, qtbot: Any, size: tuple[int, int]) -> None:
    get_qt_viewer(viewer).dockLayerControls.setVisible(False)  # as in the program's own window
    get_qt_viewer(viewer).dockLayerList.setVisible(size[0] >= 1280)
    qtbot.wait(100)
    viewer.window._qt_window.resize(*size)
    qtbot.wait(500)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", SIZES)
def test_no_text_of_the_window_is_cut(
    example_panel: Any, qtbot: Any, size: tuple[int, int], theme: str
) -> None:
    viewer, panel = example_panel
    # The message is there before the theme changes, which changes fonts and styles.
    panel.session.message.emit("warning", LONG_MESSAGE)
    viewer.theme = theme
    arrange(viewer, qtbot, size)
    panel.progress_row.label.setVisible(True)
    panel.progress_row.label.set_text("Starting training (run 001-dycon)")
    area = panel.canvas_area
    cut = []
    for diameter in (0.6, 13.1, 199.9):
        panel.layers.set_brush_mm(diameter)
        panel.layers.brush_size_changed.emit()
        cut += list_cut_texts(panel)
    for index in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(index)
        qtbot.wait(100)
        cut += list_cut_texts(panel, area.toolbar, area._bar)
    assert cut == []
    assert panel.message_label.text_label.toolTip()
    if size == SIZES[-1]:  # with a line of its own
        row = panel.progress_row
        assert row.label.visible_text() == row.label.text()
        assert row.label.geometry().bottom() < row.stop_button.geometry().top() + 2
    panel.session.close_project()  # the start page
    panel.tabs.setCurrentIndex(0)
    qtbot.wait(100)
    assert list_cut_texts(panel) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_text_of_a_dialog_is_cut(
    opened_panel: Any, project: Project, qtbot: Any, theme: str
) -> None:
    viewer, panel = opened_panel
    viewer.theme = theme
    makers: tuple[Callable[[], QWidget], ...] = (
        lambda: ShortcutsDialog(panel, panel.shortcuts),
        lambda: NewProjectDialog(panel, None, panel.task_runner),
        lambda: ExportDialog(panel, project, panel.task_runner),
    )
    for make in makers:
        dialog = make()
        dialog.show()
        qtbot.wait(300)
        assert list_cut_texts(dialog) == [], type(dialog).__name__
        dialog.close()
        dialog.deleteLater()
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)


def test_the_test_finds_cut_texts(example_panel: Any, qtbot: Any) -> None:
    _, panel = example_panel
    box = QWidget(panel)
    widgets: list[Any] = [
        QPushButton("Mark scan complete", box),
        QLabel("Scan marked complete", box),
        QCheckBox("Highlight unannotated voxels", box),
        QDoubleSpinBox(box),
    ]
    widgets[-1].setSuffix(" millimeters")
    for number, widget in enumerate(widgets):
        widget.setGeometry(0, 30 * number, 60, 24)
    box.resize(200, 200)
    box.show()
    qtbot.wait(50)
    assert len(list_cut_texts(box)) == len(widgets)
    for widget in widgets:
        widget.resize(400, 24)
    box.resize(420, 200)
    assert list_cut_texts(box) == []
    box.deleteLater()


def test_details_go_before_words_are_cut(qtbot: Any) -> None:
    label = ElidedLabel()
    qtbot.addWidget(label)
    text = "Starting training (run 001-dycon)"
    label.set_text(text)
    metrics = label.fontMetrics()
    label.resize(metrics.horizontalAdvance(text) + 2, 20)
    assert label.visible_text() == text
    label.resize(metrics.horizontalAdvance("Starting training") + 2, 20)
    assert label.visible_text() == "Starting training"
    assert text in label.toolTip()
    label.resize(metrics.horizontalAdvance("Starting") + 2, 20)
    assert label.visible_text().endswith("…")
