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


def test_triangles_point_right_when_closed_and_down_when_open(example_panel: Any) -> None:
    _, panel = example_panel
    for section, title in (
        (panel.annotate, "Interpolate, grow, clean up"),
        (panel.train, "Training history"),
    ):
        button, fold = find_fold(section).toggleButton(), find_fold(section)
        assert button.accessibleName() == title
        assert button.icon().isNull()
        for _ in range(2):
            button.click()
            assert button.text() == f"{'▼' if fold.isExpanded() else '▶'} {title}"


def test_the_unfolded_history_is_scrolled_into_view(example_panel: Any, qtbot: Any) -> None:
    _, panel = example_panel
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
