"""Text, letters, scale bar and crosshair drawn over a canvas.

A transparent Qt widget draws them, since text is sharper and cheaper there than in OpenGL. It lets
all mouse events through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, Qt
from qtpy.QtGui import (
    QColor,
    QFont,
    QFontMetrics,
    QPainter,
    QPaintEvent,
    QPen,
    QRegion,
    QTextOption,
)
from qtpy.QtWidgets import QWidget

from napari_dycon.widgets.layers.roi_layer import ROI_COLOR
from napari_dycon.widgets.views.planes import EdgeLetters
from napari_dycon.widgets.window.helpers import flags_to_int

MARGIN_PX = 8
TEXT_PX = 13
TEXT_COLOR, SHADOW_COLOR = QColor(255, 255, 255), QColor(0, 0, 0, 200)
# A dark outline, so that texts are legible over bright parts of a scan.
OUTLINE_OFFSETS = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))
CROSSHAIR_COLOR = QColor(255, 214, 80, 170)
ACTIVE_COLOR = NOTE_COLOR = QColor(255, 214, 80)
LETTER_GAP_PX = 4  # between a letter and the lines of the crosshair
CROSSHAIR_GAP_PX = 14  # free around the position, so that the voxel stays visible
SCALE_BAR_FRACTION = 0.25  # largest length of the scale bar, of the width of the view
REGION_WIDTH_PX = 2  # of the outline of the region of interest
MIN_NAME_PX = 30  # less of a name says nothing
BAR_GAP_PX = 8  # between the scale bar and the text beside it
MIN_TEXT_PX = 70  # a text that is cut to less says nothing
MIN_LETTERS_PX = 90  # smaller views show no letters
ALIGN = Qt.AlignmentFlag


@dataclass
class AnnotationContent:
    """What is drawn over a canvas.

    ``crosshair`` is a position in pixels of the canvas, ``region`` the left, top, right and bottom
    border of the region of interest, ``zoom`` the pixels of one millimeter.
    """

    name: str = ""  # of the case; shortened in narrow views
    title: str = ""
    note: str = ""  # below the title, such as that the prediction is a preview
    short_title: str = ""  # for views in which the other does not fit
    readout: str = ""  # position, intensity and structure under the mouse
    window: str = ""  # window and level
    letters: EdgeLetters | None = None
    crosshair: tuple[float, float] | None = None
    region: tuple[float, float, float, float] | None = None
    zoom: float = 0.0
    is_active: bool = False  # commands for a slice act on this view


@dataclass
class ScaleBar:
    """Length of a scale bar in pixels, and its text."""

    length_px: float
    text: str


def fit_beside(text: str, width: float, metrics: QFontMetrics) -> str:
    """Shorten a text at its end to a width; empty if too little of it would be left."""
    if metrics.horizontalAdvance(text) <= width:
        return text
    if width < MIN_TEXT_PX:
        return ""
    return str(metrics.elidedText(text, Qt.TextElideMode.ElideRight, int(width)))


def choose_scale_bar(zoom: float, max_length_px: float) -> ScaleBar | None:
    """Choose the longest bar of 1, 2 or 5 times a power of ten that fits.

    Parameters
    ----------
    zoom : pixels of one millimeter
    max_length_px : largest length in pixels

    Returns
    -------
    The bar in millimeters, or in centimeters from 10 cm on; ``None`` if the zoom is not known yet.
    """
    if zoom <= 0 or max_length_px <= 0:
        return None
    max_mm = max_length_px / zoom
    power = 10.0 ** math.floor(math.log10(max_mm))
    length_mm = max(factor * power for factor in (1, 2, 5) if factor * power <= max_mm * (1 + 1e-9))
    text = f"{length_mm / 10:g} cm" if length_mm >= 100 else f"{length_mm:g} mm"
    return ScaleBar(length_mm * zoom, text)


@dataclass
class _Placement:
    alignment: Qt.AlignmentFlag
    text: str
    color: QColor = field(default_factory=lambda: TEXT_COLOR)
    is_bold: bool = False
    line: int = 0  # below the top


class CanvasAnnotations(QWidget):
    """Transparent widget over a canvas; ``show_content`` draws new content."""

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.content = AnnotationContent()
        canvas.installEventFilter(self)
        self.setGeometry(canvas.rect())
        self.show()

    def show_content(self, content: AnnotationContent) -> None:
        """Draw new content if it differs."""
        if content != self.content:
            self.content = content
            self.update()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Follow the size of the canvas."""
        if event.type() == QEvent.Type.Resize and isinstance(watched, QWidget):
            self.setGeometry(watched.rect())
        return False

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 (Qt's name)
        """Draw crosshair, letters, texts and scale bar."""
        if not self.content.title:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.TextAntialiasing)
        font = QFont(self.font())
        font.setPixelSize(TEXT_PX)
        painter.setFont(font)
        self._draw_region(painter)
        self._draw_crosshair(painter)
        self._draw_texts(painter)
        self._draw_scale_bar(painter)
        painter.end()

    def _draw_region(self, painter: QPainter) -> None:
        if self.content.region is not None:
            left, top, right, bottom = self.content.region
            painter.setPen(QPen(QColor(ROI_COLOR), REGION_WIDTH_PX))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(QRectF(QPointF(left, top), QPointF(right, bottom)).normalized())

    def _draw_crosshair(self, painter: QPainter) -> None:
        if self.content.crosshair is None:
            return
        x, y = (round(v) + 0.5 for v in self.content.crosshair)
        painter.setClipRegion(self._list_space_between_letters(painter))
        painter.setPen(QPen(CROSSHAIR_COLOR, 1))
        width, height, gap = self.width(), self.height(), CROSSHAIR_GAP_PX
        for start, end in (
            ((0, y), (x - gap, y)),
            ((x + gap, y), (width, y)),
            ((x, 0), (x, y - gap)),
            ((x, y + gap), (x, height)),
        ):
            painter.drawLine(QPointF(*start), QPointF(*end))
        painter.setClipping(False)

    def _list_space_between_letters(self, painter: QPainter) -> QRegion:
        """Where lines cannot make letters illegible, such as an "I" on the vertical line."""
        space = QRegion(self.rect())
        for placement in self._place_letters():
            area = self._find_area(placement)
            flags = flags_to_int(placement.alignment)
            text = painter.boundingRect(area, flags, placement.text)
            space -= QRegion(text.adjusted(-LETTER_GAP_PX, 0, LETTER_GAP_PX, 0).toAlignedRect())
        return space

    def _draw_texts(self, painter: QPainter) -> None:
        content = self.content
        placements = [
            _Placement(
                ALIGN.AlignTop | ALIGN.AlignLeft,
                self._compose_title(painter),
                ACTIVE_COLOR if content.is_active else TEXT_COLOR,
            ),
            *self._place_note(painter),
            _Placement(
                ALIGN.AlignBottom | ALIGN.AlignLeft,
                fit_beside(
                    content.readout or content.window,
                    self.width() - 2 * MARGIN_PX - self._measure_scale_bar(painter) - BAR_GAP_PX,
                    painter.fontMetrics(),
                ),
            ),
        ]
        for placement in (*placements, *self._place_letters()):
            self._draw_text(painter, placement)

    def _place_note(self, painter: QPainter) -> list[_Placement]:
        """Place the note left of the letter at the top, shortened to its first word if needed."""
        space = self.width() // 2 - 2 * MARGIN_PX
        words = self.content.note.split()
        fits = painter.fontMetrics().horizontalAdvance(self.content.note) <= space
        text = self.content.note if fits or not words else words[0]
        return [_Placement(ALIGN.AlignTop | ALIGN.AlignLeft, text, NOTE_COLOR, line=1)]

    def _place_letters(self) -> list[_Placement]:
        letters = self.content.letters
        if letters is None or min(self.width(), self.height()) < MIN_LETTERS_PX:
            return []
        return [
            _Placement(ALIGN.AlignVCenter | ALIGN.AlignLeft, letters.left, is_bold=True),
            _Placement(ALIGN.AlignVCenter | ALIGN.AlignRight, letters.right, is_bold=True),
            _Placement(ALIGN.AlignTop | ALIGN.AlignHCenter, letters.top, is_bold=True),
            _Placement(ALIGN.AlignBottom | ALIGN.AlignHCenter, letters.bottom, is_bold=True),
        ]

    def _find_area(self, placement: _Placement) -> QRectF:
        """Area in which a text is aligned."""
        area = QRectF(self.rect()).adjusted(MARGIN_PX, MARGIN_PX, -MARGIN_PX, -MARGIN_PX)
        area.setTop(area.top() + placement.line * (TEXT_PX + 4))
        if placement.is_bold and placement.alignment & ALIGN.AlignTop:
            area.setTop(area.top() + TEXT_PX + 4)  # below the title
        if placement.is_bold and placement.alignment & ALIGN.AlignBottom:
            area.setBottom(area.bottom() - TEXT_PX - 4)  # above the readout
        return area

    def _compose_title(self, painter: QPainter) -> str:
        """Put the name before the title, shortened so that the rest is never cut."""
        metrics, content = painter.fontMetrics(), self.content
        space = self.width() - 2 * MARGIN_PX
        for title in (content.title, content.short_title):
            rest = f" · {title}"
            available = space - metrics.boundingRect(rest).width() - 4
            if available > MIN_NAME_PX:
                elide = Qt.TextElideMode.ElideMiddle
                return f"{metrics.elidedText(content.name, elide, available)}{rest}"
        return content.short_title

    def _draw_text(self, painter: QPainter, placement: _Placement) -> None:
        font = painter.font()
        font.setBold(placement.is_bold)
        painter.setFont(font)
        area = self._find_area(placement)
        text = painter.fontMetrics().elidedText(
            placement.text, Qt.TextElideMode.ElideMiddle, int(area.width())
        )
        painter.setPen(SHADOW_COLOR)
        for x, y in OUTLINE_OFFSETS:
            painter.drawText(area.translated(x, y), text, QTextOption(placement.alignment))
        painter.setPen(placement.color)
        painter.drawText(area, text, QTextOption(placement.alignment))

    def _choose_scale_bar(self) -> ScaleBar | None:
        return choose_scale_bar(self.content.zoom, self.width() * SCALE_BAR_FRACTION)

    def _measure_scale_bar(self, painter: QPainter) -> float:
        """Return the width of the scale bar with its text."""
        bar = self._choose_scale_bar()
        if bar is None:
            return 0.0
        return max(bar.length_px, float(painter.fontMetrics().horizontalAdvance(bar.text)))

    def _draw_scale_bar(self, painter: QPainter) -> None:
        bar = self._choose_scale_bar()
        if bar is None:
            return
        right, bottom = self.width() - MARGIN_PX, self.height() - MARGIN_PX
        left = right - bar.length_px
        for offset, width, color in ((1, 4, SHADOW_COLOR), (0, 2, TEXT_COLOR)):
            painter.setPen(QPen(color, width))
            line_y = bottom + offset
            painter.drawLine(QPointF(left, line_y), QPointF(right, line_y))
            for x in (left, right):
                painter.drawLine(QPointF(x, line_y - 4), QPointF(x, line_y))
        text_area = QRectF(left - 60, bottom - TEXT_PX - 12, bar.length_px + 60, TEXT_PX + 6)
        self._draw_aligned(painter, text_area, bar.text)

    def _draw_aligned(self, painter: QPainter, area: QRectF, text: str) -> None:
        font = painter.font()
        font.setBold(False)
        painter.setFont(font)
        alignment = QTextOption(ALIGN.AlignRight | ALIGN.AlignVCenter)
        painter.setPen(SHADOW_COLOR)
        for x, y in OUTLINE_OFFSETS:
            painter.drawText(area.translated(x, y), text, alignment)
        painter.setPen(TEXT_COLOR)
        painter.drawText(area, text, alignment)
