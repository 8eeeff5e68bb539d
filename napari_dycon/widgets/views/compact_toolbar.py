"""A toolbar whose controls become smaller, and at last fewer, where the window is narrow."""

from __future__ import annotations

from dataclasses import dataclass

from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QAbstractSpinBox, QToolBar, QToolButton

OVERFLOW_BUTTON = "qt_toolbar_ext_button"  # Qt's name of it


@dataclass(frozen=True)
class Density:
    """How much space the controls take.

    ``padding_px`` is at the left and right of a button's text, ``number_px`` the width of number
    fields, which have no arrows if ``has_arrows`` is false. ``has_short_texts`` stands for
    abbreviations such as "Sag".
    """

    padding_px: int
    number_px: int
    has_arrows: bool = True
    has_short_texts: bool = False


DENSITIES = (  # the first that fits is used
    Density(padding_px=7, number_px=104),
    Density(padding_px=5, number_px=62, has_arrows=False),
    Density(padding_px=3, number_px=56, has_arrows=False, has_short_texts=True),
)


class CompactToolbar(QToolBar):
    """Chooses a density by its width; Qt moves what still does not fit behind a button "»"."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._short_texts: dict[QToolButton, tuple[str, str]] = {}  # usual and short text
        self._numbers: list[QAbstractSpinBox] = []
        self._colors = ("transparent", "palette(text)")  # highlight and text
        self._density = DENSITIES[0]
        self._widths: list[int] = []  # that each density needs, once it is measured
        overflow = self.findChild(QToolButton, OVERFLOW_BUTTON)
        if overflow is not None:  # its arrow is invisible in napari's dark theme
            overflow.setText("»")
            overflow.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)

    @property
    def density(self) -> Density:
        """Density that is used."""
        return self._density

    def use_colors(self, highlight: str, text: str) -> None:
        """Follow the theme of the window, which has no style for buttons of toolbars."""
        self._colors = highlight, text
        self._apply(self._density)
        self.refit()

    def add_short_text(self, button: QToolButton, text: str) -> None:
        """Set the abbreviation of a button; screen readers are always given the whole name."""
        self._short_texts[button] = (button.text(), text)
        button.setAccessibleName(button.text())

    def add_number(self, spin_box: QAbstractSpinBox) -> None:
        """Let a number field become narrower."""
        spin_box.setFixedWidth(self._density.number_px)
        self._numbers.append(spin_box)

    def refit(self) -> None:
        """Choose the density again, after a change of what the toolbar contains."""
        self._widths = []
        if self.isVisible():
            self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 (Qt's name)
        """Choose the density for a new width."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._fit()

    def _fit(self) -> None:
        if not self._widths:
            for density in DENSITIES:
                self._apply(density)
                self._widths.append(self._measure())
        fitting = [d for d, w in zip(DENSITIES, self._widths, strict=True) if w <= self.width()]
        self._apply(fitting[0] if fitting else DENSITIES[-1])

    def _measure(self) -> int:
        self.layout().invalidate()
        return int(self.sizeHint().width())

    def _apply(self, density: Density) -> None:
        highlight, text = self._colors
        style = (
            f"QToolButton {{ padding: 3px {density.padding_px}px; border-radius: 3px; }}"
            f"QToolButton:checked {{ background: {highlight}; color: {text}; }}"
            f"QToolButton:hover {{ border: 1px solid {highlight}; }}"
            f"QToolButton#{OVERFLOW_BUTTON} {{ padding: 0px; }}"
        )
        if style != self.styleSheet():
            self.setStyleSheet(style)
        self._density = density
        symbols = QAbstractSpinBox.ButtonSymbols
        for number in self._numbers:
            number.setButtonSymbols(
                symbols.UpDownArrows if density.has_arrows else symbols.NoButtons
            )
            number.setStyleSheet("" if density.has_arrows else "min-width: 0px; padding: 1px 3px;")
            number.setFixedWidth(density.number_px)
        for button, texts in self._short_texts.items():
            button.setText(texts[density.has_short_texts])
