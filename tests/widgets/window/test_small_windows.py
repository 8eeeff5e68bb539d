"""Everything that annotating needs is in sight, however small the window is."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import QWidget

from napari_dycon.widgets.layers.napari_internals import get_qt_viewer
from napari_dycon.widgets.window.layer_list_dock import LayerListDock
from napari_dycon.widgets.window.panel_sections import CASES_TAB

pytestmark = pytest.mark.gui

SMALL = (960, 540)  # 1920×1080 at 200 %
LAPTOP = (1366, 768)
LARGE = (1600, 1000)


def resize(viewer: Any, qtbot: Any, size: tuple[int, int]) -> None:
    """Resize the window, and wait until it is arranged."""
    window = viewer.window._qt_window
    qtbot.wait(100)  # docks that were hidden no longer count for the smallest size
    window.resize(*size)
    qtbot.wait(600)
    assert window.width() == size[0]


def is_in_sight(widget: QWidget) -> bool:
    """Whether no part of a widget is scrolled away or outside of the window."""
    if not widget.isVisible():
        return False
    parent = widget.parentWidget()
    while parent is not None:
        origin = widget.mapTo(parent, QPoint(0, 0))
        if not parent.rect().contains(QRect(origin, widget.size())):
            return False
        if parent.isWindow():
            return True
        parent = parent.parentWidget()
    return True


@pytest.mark.parametrize(("size", "theme"), [(SMALL, "dark"), (SMALL, "light"), (LAPTOP, "dark")])
def test_all_that_annotating_needs_is_in_sight(
    example_panel: Any, qtbot: Any, size: tuple[int, int], theme: str
) -> None:
    viewer, panel = example_panel
    viewer.theme = theme
    get_qt_viewer(viewer).dockLayerControls.setVisible(False)  # as in the program's own window
    get_qt_viewer(viewer).dockLayerList.setVisible(size[0] >= 1280)
    resize(viewer, qtbot, size)
    panel.sections.show_section(panel.annotate)
    qtbot.wait(200)
    assert (viewer.window._qt_window.width(), viewer.window._qt_window.height()) == size
    annotate, toolbar = panel.annotate, panel.canvas_area.toolbar
    brush = annotate.brush
    hidden = [
        str(widget.accessibleName() or getattr(widget, "text", str)())
        for widget in (
            annotate.structures.list,
            annotate.structures.add_button,
            brush.paint_button,
            brush.background_button,
            brush.erase_button,
            brush.diameter,
            brush.undo_button,
            brush.redo_button,
            brush.limit_checkbox,
            brush.pick_button,
            annotate.completion.slice_button,
            annotate.completion.scan_button,
            annotate.completion.reviewed_button,
            annotate.unannotated_checkbox,
            annotate.collapsible.toggleButton(),
            panel.strip,
            *toolbar.tools.buttons.values(),
            *toolbar.plane_buttons.values(),
            toolbar.solid_button,
            toolbar.linked_button,
            toolbar.crosshair_button,
            toolbar.reset_button,
            toolbar.preset,
            toolbar.width_box,
            toolbar.level_box,
            toolbar.histogram_button,
        )
        if not is_in_sight(widget)
    ]
    assert hidden == []
    panel.sections.show_section(panel.train)
    qtbot.wait(100)
    train = panel.train
    for widget in (train.start_button, train.status_label):
        assert is_in_sight(widget)
    panel.sections.show_section(panel.review)
    qtbot.wait(100)
    review = panel.review
    for button in (
        review.prediction_controls.predict_button,
        review.next_region_button,
        review.next_case_button,
        review.accept_button,
        review.accept_brush_button,
    ):
        assert is_in_sight(button)


def test_the_list_of_cases_is_a_tab_in_a_low_window(opened_panel: Any, qtbot: Any) -> None:
    viewer, panel = opened_panel
    sections, session = panel.sections, panel.session
    sections.show_section(panel.review)
    assert not sections.is_low
    resize(viewer, qtbot, SMALL)
    assert sections.is_low
    assert sections.tabs.tabText(0) == CASES_TAB
    assert sections.tabs.currentIndex() == 3  # Review, as before
    path = session.project.path
    session.close_project()  # only the list of cases can be used now
    assert sections.tabs.currentWidget() is panel.data
    session.open_project(path)
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    assert panel.data.case_list.isVisible()
    session.show_case("scan-2")
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    assert sections.tabs.currentWidget() is panel.data  # a click changes no tab
    resize(viewer, qtbot, LAPTOP)
    assert not sections.is_low
    assert [sections.tabs.tabText(i) for i in range(3)] == ["Annotate", "Train", "Review"]
    assert panel.data.isVisible()
    assert panel.data.case_list.isVisible()


def test_side_views_and_layer_list_follow_the_window(own_panel: Any, qtbot: Any) -> None:
    viewer, panel = own_panel
    dock = get_qt_viewer(viewer).dockLayerList
    LayerListDock(panel.canvas_area.window_width, dock)
    views = panel.canvas_area.views
    resize(viewer, qtbot, LAPTOP)
    assert not views.has_side_views
    assert dock.isVisible()
    resize(viewer, qtbot, SMALL)
    assert not dock.isVisible()
    resize(viewer, qtbot, LARGE)
    assert views.has_side_views
    assert dock.isVisible()
    resize(viewer, qtbot, SMALL)
    assert not views.has_side_views

    # What the user chooses is kept.
    panel.canvas_area.toolbar.linked_button.click()
    dock.setVisible(True)
    resize(viewer, qtbot, LAPTOP)
    resize(viewer, qtbot, SMALL)
    assert views.has_side_views
    assert dock.isVisible()
    panel.canvas_area.toolbar.linked_button.click()
    dock.setVisible(False)
    resize(viewer, qtbot, LARGE)
    assert not views.has_side_views
    assert not dock.isVisible()


def test_side_views_are_usable_in_a_small_window(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    get_qt_viewer(viewer).dockLayerControls.setVisible(False)
    get_qt_viewer(viewer).dockLayerList.setVisible(False)
    resize(viewer, qtbot, SMALL)
    panel.canvas_area.views.show_side_views(True)
    views = panel.canvas_area.views.views
    qtbot.waitUntil(lambda: all(v.annotations.content.zoom > 0 for v in views), timeout=5_000)
    for view in views:
        assert min(view.canvas.width(), view.canvas.height()) > 150
        bar = view.annotations._choose_scale_bar()
        assert bar is not None
        assert 10 < bar.length_px < view.canvas.width() / 3
    panel.canvas_area.views.show_side_views(False)
    get_qt_viewer(viewer).dockLayerList.setVisible(True)


def test_the_toolbar_abbreviates_only_where_it_must(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    toolbar = panel.canvas_area.toolbar
    button = next(iter(toolbar.plane_buttons.values()))
    resize(viewer, qtbot, LAPTOP)
    assert button.text() == "Axial"
    assert toolbar.width_box.width() > 90
    resize(viewer, qtbot, SMALL)
    assert button.text() == "Ax"
    assert button.accessibleName() == "Axial"
    assert toolbar.sizeHint().width() <= toolbar.width()
    resize(viewer, qtbot, LAPTOP)
    assert button.text() == "Axial"
    assert toolbar.width_box.width() > 90
