"""Controls that a user sees, and what a screen reader says of them."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QHeaderView,
    QLineEdit,
    QScrollBar,
    QWidget,
)

CONTROLS = (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
)
# Parts of other widgets: their owner has the name and the focus.
PARTS = (QScrollBar, QHeaderView)


def list_controls(*roots: QWidget) -> Iterator[QWidget]:
    """List the controls that a user sees, without their parts."""
    for root in roots:
        for control in root.findChildren(QWidget):
            parent = control.parentWidget()
            is_part = isinstance(control, PARTS) or (
                control.objectName().startswith("qt_")
                or isinstance(parent, (QAbstractSpinBox, QComboBox, QAbstractItemView))
                or (parent is not None and "QComboBox" in parent.metaObject().className())
            )
            if isinstance(control, CONTROLS) and not is_part:
                yield control


def describe(control: QWidget) -> str:
    """Name what a screen reader says: the accessible name, or the text."""
    text = (
        control.text() if hasattr(control, "text") and isinstance(control, QAbstractButton) else ""
    )
    return control.accessibleName() or text
