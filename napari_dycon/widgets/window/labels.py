"""Labels whose size does not depend on their text, so that nothing moves when it changes."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QPainter, QPaintEvent
from qtpy.QtWidgets import QLabel, QWidget

from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.widgets.window.helpers import flags_to_int

MIN_WIDTH_PX = 100


REMAINING_SEPARATOR = ", "  # before the time left, see ``core.durations.format_remaining``
REMAINING_END = " left"


class ElidedLabel(QLabel):
    """A label of one line, shortened with "…" if it does not fit; the tooltip has all of it.

    The time left at the end of a text stays legible. A detail in parentheses goes first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.PlainText)

    def set_text(self, text: str) -> None:
        """Show a text literally."""
        text = escape_control_characters(text)
        if text != self.text():
            self.setText(text)
            self.setToolTip(escape_rich_text(text))

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Return the size of one line."""
        return QSize(super().sizeHint().width(), self._line_height())

    def minimumSizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Return a size that never widens the panel."""
        return QSize(0, self._line_height())

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 (Qt's name)
        """Draw as much of the text as fits."""
        painter = QPainter(self)
        flags = flags_to_int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        painter.drawText(self.rect(), flags, self.visible_text())

    def visible_text(self) -> str:
        """Return the text as it is drawn."""
        metrics, end = self.fontMetrics(), ""
        what, separator, remaining = self.text().rpartition(REMAINING_SEPARATOR)
        if separator and remaining.endswith(REMAINING_END):
            end = f"{separator}{remaining}"
            if metrics.horizontalAdvance(f"{self.text()}") > self.width():
                end = end.replace("about ", "")  # the first word to go
        else:
            what = self.text()
        width = self.width() - int(metrics.horizontalAdvance(end))
        if what.endswith(")") and metrics.horizontalAdvance(what) > width:
            what = what.rpartition(" (")[0]  # a detail, such as the number of the run
        return f"{metrics.elidedText(what, Qt.TextElideMode.ElideRight, width)}{end}"

    def _line_height(self) -> int:
        self.ensurePolished()
        return int(self.fontMetrics().height()) + 2


class ReservedLabel(QLabel):
    """A wrapped label at least as high as some lines, whatever its text."""

    def __init__(self, n_lines: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(True)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        # A label with the same style and that many lines, which is never shown.
        self._ruler = QLabel()
        self._ruler.setParent(self)
        self._ruler.setText("\n".join("X" * n_lines))
        self._ruler.setWordWrap(True)
        self._ruler.setAlignment(self.alignment())
        self._ruler.hide()

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Return a size of at least the reserved lines."""
        return super().sizeHint().expandedTo(QSize(0, self._reserved_height()))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Return a size of at least the reserved lines."""
        return super().minimumSizeHint().expandedTo(QSize(0, self._reserved_height()))

    def heightForWidth(self, width: int) -> int:  # noqa: N802 (Qt's name)
        """Return the height of the text, or that of the reserved lines if it is larger."""
        return max(int(super().heightForWidth(width)), self._reserved_height())

    def _reserved_height(self) -> int:
        self._ruler.ensurePolished()  # hidden widgets get the font of the theme late
        return int(self._ruler.heightForWidth(max(self.width(), MIN_WIDTH_PX)))
