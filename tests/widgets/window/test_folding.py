"""Folded parts of tabs: direction of the triangle, scrolled into view; nothing empty is shown."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QScrollArea
from superqt import QCollapsible

from napari_dycon.application.training.history import RunSummary
from napari_dycon.project.runs.events import StartedEvent, StepEvent
from napari_dycon.project.store import Project

pytestmark = pytest.mark.gui


def find_fold(section: Any) -> QCollapsible:
    return section.findChild(QCollapsible)


def is_inside(widget: Any, scroll_area: QScrollArea) -> bool:
    """Whether the whole widget is scrolled into view."""
    viewport = scroll_area.viewport()
    top = widget.mapTo(viewport, QPoint(0, 0)).y()
    return top >= 0 and top + widget.height() <= viewport.height()


def test_triangles_point_right_when_closed_and_down_when_open(opened_panel: Any) -> None:
    _, panel = opened_panel
    for section in (panel.annotate, panel.train):
        fold = find_fold(section)
        closed, opened = (
            icon.pixmap(32, 32).toImage() for icon in (fold.collapsedIcon(), fold.expandedIcon())
        )
        top, bottom, _, _ = count_halves(opened)
        assert top > 1.5 * bottom
        _, _, left, right = count_halves(closed)
        assert left > 1.5 * right


def count_halves(image: Any) -> tuple[int, int, int, int]:
    """Opaque pixels in the upper, lower, left and right half of what an icon shows."""
    pixels = [
        (x, y)
        for x in range(image.width())
        for y in range(image.height())
        if image.pixelColor(x, y).alpha() > 128
    ]
    x_middle, y_middle = (
        (min(p[axis] for p in pixels) + max(p[axis] for p in pixels)) / 2 for axis in (0, 1)
    )
    return (
        sum(y < y_middle for _, y in pixels),
        sum(y > y_middle for _, y in pixels),
        sum(x < x_middle for x, _ in pixels),
        sum(x > x_middle for x, _ in pixels),
    )


def test_the_unfolded_history_is_scrolled_into_view(opened_panel: Any, qtbot: Any) -> None:
    _, panel = opened_panel
    panel.sections.show_section(panel.train)
    history = panel.train.history
    curve = [(1.0, 0.5), (2.0, 0.6)]
    history._fill([RunSummary("001-dycon", "dycon", 3, 100, 0.42, None, "finished", curve, curve)])
    qtbot.wait(100)
    fold, scroll_area = find_fold(panel.train), panel.tabs.currentWidget()
    scroll_area.verticalScrollBar().setValue(0)
    fold.toggleButton().click()
    if history.height() <= scroll_area.viewport().height() - 40:
        qtbot.waitUntil(lambda: is_inside(history, scroll_area), timeout=5_000)
    else:  # its beginning
        qtbot.waitUntil(
            lambda: (
                is_inside(history.table, scroll_area)
                and abs(fold.mapTo(scroll_area.viewport(), QPoint(0, 0)).y()) < 3
            ),
            timeout=5_000,
        )
    fold.toggleButton().click()


def test_empty_charts_are_not_shown(opened_panel: Any, project: Project, qtbot: Any) -> None:
    _, panel = opened_panel
    panel.sections.show_section(panel.train)
    curves, history = panel.train.curves, panel.train.history
    loss = curves.plots["loss"]
    curves.clear()
    curves.set_state(is_training=False, has_runs=False)
    assert loss.isHidden()
    assert curves.loss_note.isVisible()
    assert curves.loss_note.text() == "No training yet."
    curves.set_state(is_training=True, has_runs=True)  # reserved, so that nothing moves later
    assert loss.isVisible()
    assert curves.loss_note.isHidden()
    curves.add_events([StartedEvent(run="001"), StepEvent(step=1, loss_terms={"supervised": 1.0})])
    curves.set_state(is_training=False, has_runs=True)
    assert loss.isVisible()
    history._fill([])
    assert history.table.isHidden()
    assert history.loss_plot.isHidden()
    assert history.dice_plot.isHidden()
    assert history.summary_label.text() == "No training yet."
