"""The mouse wheel scrolls a page of controls; it does not change the control under the mouse."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QScrollArea,
    QScrollBar,
    QWidget,
)


class WheelGuard(QObject):
    """Passes wheel events of a page's controls to the page.

    Otherwise a page that scrolls under the mouse changes settings unnoticed. A spin box that was
    clicked still follows the wheel.
    """

    def __init__(self, page: QWidget) -> None:
        super().__init__(page)
        for control in page.findChildren(QWidget):
            if not isinstance(control, QComboBox | QAbstractSlider | QAbstractSpinBox):
                continue
            if isinstance(control, QScrollBar):
                continue
            if control.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                control.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            control.installEventFilter(self)

    def eventFilter(self, control: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Leave wheel events to the page."""
        if event.type() != QEvent.Type.Wheel:
            return False
        if isinstance(control, QAbstractSpinBox) and control.hasFocus():
            return False
        if isinstance(control, QWidget):
            scroll_page(control, event)
        return True


def scroll_page(widget: QWidget, event: QEvent) -> None:
    """Scroll the page around a widget by a wheel event."""
    page = widget.parentWidget()
    while page is not None and not isinstance(page, QScrollArea):
        page = page.parentWidget()
    if page is None:
        event.ignore()
        return
    QApplication.sendEvent(page.verticalScrollBar(), event)
    event.accept()  # otherwise Qt would offer it to the page again
