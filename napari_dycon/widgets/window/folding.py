"""Parts of a tab that are folded behind a title."""

from __future__ import annotations

from qtpy.QtCore import QPoint, QTimer
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QScrollArea, QWidget
from superqt import QCollapsible

LAYOUT_MS = 60  # until the tab has its new height
OPEN, CLOSED = "▼", "▶"


def make_collapsible(title: str, content: QWidget) -> QCollapsible:
    """Fold a widget behind a title; when the user unfolds it, it is scrolled into view."""
    # The triangle is text: icons are drawn once, in the color of one theme.
    collapsible = QCollapsible(f"{CLOSED} {title}", expandedIcon=QIcon(), collapsedIcon=QIcon())
    collapsible.toggled.connect(
        lambda is_open: collapsible.setText(f"{OPEN if is_open else CLOSED} {title}")
    )
    collapsible.toggleButton().setAccessibleName(title)
    collapsible.setDuration(0)
    collapsible.layout().setContentsMargins(0, 0, 0, 0)
    collapsible.addWidget(content)

    timer = QTimer(collapsible)  # stops when the widget is deleted
    timer.setSingleShot(True)
    timer.setInterval(LAYOUT_MS)
    timer.timeout.connect(lambda: scroll_into_view(collapsible))
    collapsible.toggleButton().clicked.connect(
        lambda is_expanded: timer.start() if is_expanded else timer.stop()
    )
    return collapsible


def scroll_into_view(widget: QWidget) -> None:
    """Scroll the tab around a widget so far that all of it is visible, or else its beginning."""
    scroll_area = widget.parentWidget()
    while scroll_area is not None and not isinstance(scroll_area, QScrollArea):
        scroll_area = scroll_area.parentWidget()
    if scroll_area is None:
        return
    top = widget.mapTo(scroll_area.widget(), QPoint(0, 0)).y()
    bar, height = scroll_area.verticalScrollBar(), scroll_area.viewport().height()
    if top + widget.height() > bar.value() + height:
        bar.setValue(min(top, top + widget.height() - height))
