"""Texts that do not fit into their widgets."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QRadioButton,
    QStyle,
    QStyleOptionButton,
    QStyleOptionComboBox,
    QTabBar,
    QWidget,
)
from superqt import QElidingLabel

from napari_dycon.widgets.window.helpers import flags_to_int
from napari_dycon.widgets.window.labels import ElidedLabel

CURSOR_PX = 2  # margin that Qt leaves for the cursor at both ends of a field


def list_cut_texts(*roots: QWidget) -> list[str]:
    """Describe texts that are cut without a tooltip that has all of them."""
    return [text for root in roots for widget in _walk(root) if (text := _describe(widget))]


def _walk(root: QWidget) -> Iterator[QWidget]:
    for widget in (root, *root.findChildren(QWidget)):
        # napari's own docks beside ours are not ours to judge.
        if widget.isVisible() and not widget.visibleRegion().isEmpty():
            yield widget


def _describe(widget: QWidget) -> str:
    if isinstance(widget, (QElidingLabel, ElidedLabel)):
        shown = widget.visible_text() if isinstance(widget, ElidedLabel) else widget._elidedText()
        # Empty labels and texts that are whole need no tooltip.
        if shown != widget.text() and widget.text() not in _plain(widget.toolTip()):
            return f"{type(widget).__name__}: {widget.text()!r} without a tooltip"
        return ""
    if isinstance(widget, QLabel):
        return _check_label(widget)
    if isinstance(widget, QComboBox):
        return _check(widget, widget.currentText(), _find_combo_width(widget))
    if isinstance(widget, QAbstractSpinBox):
        field = widget.findChild(QLineEdit)
        return _check(widget, widget.text(), field.width() - 2 * CURSOR_PX)
    if isinstance(widget, (QCheckBox, QRadioButton)):
        option = QStyleOptionButton()
        widget.initStyleOption(option)
        element = QStyle.SubElement.SE_CheckBoxContents
        width = widget.style().subElementRect(element, option, widget).width()
        return _check(widget, widget.text(), width)
    if isinstance(widget, QAbstractButton):
        return _check(widget, widget.text(), widget.width() - 2)
    if isinstance(widget, QTabBar):
        return "; ".join(
            text
            for i in range(widget.count())
            if (text := _check(widget, widget.tabText(i), widget.tabRect(i).width()))
        )
    if isinstance(widget, QLineEdit) and not widget.text() and widget.placeholderText():
        if widget.placeholderText() in _plain(widget.toolTip()):
            return ""
        return _check(widget, widget.placeholderText(), widget.width() - 2 * CURSOR_PX)
    return ""


def _check(widget: QWidget, text: str, width: int) -> str:
    needed = widget.fontMetrics().horizontalAdvance(text.replace("&&", "\0").replace("&", ""))
    if needed <= width:
        return ""
    return f"{type(widget).__name__}: {text!r} needs {needed} of {width} px"


def _check_label(label: QLabel) -> str:
    if label.pixmap() is not None and not label.text():
        return ""
    text, area = label.text(), label.contentsRect()
    if label.textFormat() == Qt.TextFormat.RichText or (
        label.textFormat() == Qt.TextFormat.AutoText and "<" in text
    ):
        return ""
    if text.endswith("…") and text.removesuffix("…").strip() in _plain(label.toolTip()):
        return ""
    flags = flags_to_int(Qt.TextFlag.TextWordWrap) if label.wordWrap() else 0
    bounds = label.fontMetrics().boundingRect(
        0, 0, area.width() if label.wordWrap() else 10_000, 10_000, flags, text
    )
    needed = (
        label.fontMetrics().horizontalAdvance(text)
        if not flags and "\n" not in text
        else bounds.width()
    )
    if needed > area.width() or bounds.height() > area.height() + 1:
        size = f"{needed}×{bounds.height()}"
        return f"QLabel: {text!r} needs {size} of {area.width()}×{area.height()} px"
    return ""


def _find_combo_width(combo_box: QComboBox) -> int:
    option = QStyleOptionComboBox()
    combo_box.initStyleOption(option)
    area = combo_box.style().subControlRect(
        QStyle.ComplexControl.CC_ComboBox,
        option,
        QStyle.SubControl.SC_ComboBoxEditField,
        combo_box,
    )
    return int(area.width())


def _plain(tip: str) -> str:
    return tip.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
