"""Keyboard shortcuts that do not collide with napari's own, and the dialog that lists them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QLabel,
    QScrollArea,
    QStyle,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.session import Session
from napari_dycon.widgets.annotate.brush import BrushControls
from napari_dycon.widgets.annotate.section import AnnotateSection
from napari_dycon.widgets.annotate.structure_list import NUMBER_KEYS
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.review.section import ReviewSection
from napari_dycon.widgets.views.linked_views import LinkedViews
from napari_dycon.widgets.window.helpers import report_errors
from napari_dycon.widgets.window.key_dispatcher import PASS_ON
from napari_dycon.widgets.window.key_layouts import KeyPress

TITLE_BAR_PX = 40  # of the dialog
SCROLL_BORDER_PX = 2  # of the theme
NAPARI_SHORTCUTS = (
    ("3", "polygon; a double click closes it, Esc cancels it"),
    ("4 or F", "fill"),
    ("Z", "move"),
    ("Ctrl+Z, Ctrl+Shift+Z", "undo, redo"),
    ("Space (held)", "move and zoom while painting"),
    ("Ctrl+E", "next plane in the main view"),
    ("Ctrl+Y", "3D view and back"),
    ("Ctrl+R", "fit the scan into the views"),
)
MOUSE = (
    ("Click, Shift+click", "move the crosshair; with Shift while a tool is active"),
    ("Wheel", "slices"),
    ("Ctrl+wheel", "zoom"),
    ("Right drag", "window and level"),
)


@dataclass(frozen=True)
class Shortcut:
    """A key in napari's notation, its description and its action."""

    key: str
    description: str
    action: Callable[[], object]


def build_shortcuts(
    session: Session,
    annotate: AnnotateSection,
    review: ReviewSection,
    views: LinkedViews,
    show_help: Callable[[], None],
) -> list[Shortcut]:
    """Build all shortcuts of the panel, in workflow order."""
    tools, brush, annotation = annotate.tools, annotate.brush, session.annotation
    layers = annotate.layers
    shortcuts = [
        *build_brush_shortcuts(brush, layers),
        Shortcut("I", "interpolate the structure between annotated slices", tools.fill_between),
        Shortcut(
            "W", "copy the structure from the previous slice", lambda: tools.copy_neighbor_slice(-1)
        ),
        Shortcut(
            "Shift-W",
            "copy the structure from the next slice",
            lambda: tools.copy_neighbor_slice(1),
        ),
        Shortcut("G", "grow from scribbles", tools.grow_from_scribbles),
        Shortcut(
            "Shift-G",
            "growth region: draw, edit, back to the brush",
            annotate.layers.roi.toggle_editing,
        ),
        Shortcut("A", "accept the proposal", annotation.accept_proposal),
        Shortcut("D", "discard the proposal", annotation.discard_proposal),
        Shortcut(
            "R",
            "limit the brush to intensities like those under the mouse",
            lambda: brush.pick_at(views.cursor_position()),
        ),
        Shortcut("Shift-R", "paint all intensities", lambda: annotation.set_paint_range(None)),
        Shortcut("S", "mark slice complete", annotate.mark_slice_complete),
        Shortcut("N", "next uncertain region", review.next_uncertain_region),
        Shortcut("Shift-N", "previous uncertain region", review.previous_uncertain_region),
        Shortcut("J", "next suggested case", review.next_case),
        Shortcut("T", "show or hide the prediction", lambda: review.toggle_layer("prediction")),
        Shortcut("H", "show or hide the uncertainty", lambda: review.toggle_layer("uncertainty")),
        Shortcut("K", "show or hide the label", lambda: review.toggle_layer("label")),
        Shortcut("Shift-C", "next channel", views.intensity_window.show_next_channel),
        Shortcut("Left", "previous slice", lambda: views.step_active_slice(-1)),
        Shortcut("Right", "next slice", lambda: views.step_active_slice(1)),
        Shortcut("Q", "hide everything but the scan, and show it again", layers.toggle_overlays),
        Shortcut("Escape", "cancel Pick and Component", lambda: cancel_click(session, layers)),
        Shortcut(
            "Backspace",
            "remove the last point of an outline, as Ctrl+Z does",
            lambda: remove_last_point(layers),
        ),
        Shortcut("F1", "keyboard shortcuts", show_help),
    ]
    structure_shortcuts = [
        Shortcut(
            f"Control-{number}",
            f"structure {number} of the list",
            functools.partial(annotate.structures.choose_number, number),
        )
        for number in range(1, NUMBER_KEYS + 1)
    ]
    return shortcuts + structure_shortcuts


def build_brush_shortcuts(brush: BrushControls, layers: CaseLayers) -> list[Shortcut]:
    """Build the shortcuts of the brush.

    They replace those of napari, whose eraser paints background, and whose brush grows by a voxel.
    While another layer than the label is active, the keys are napari's.
    """

    def own(action: Callable[[], object]) -> Callable[[], object]:
        return lambda: action() if layers.is_own_layer_active else PASS_ON

    # Buttons that are disabled do nothing.
    paint, background, erase = (
        own(button.click)
        for button in (brush.paint_button, brush.background_button, brush.erase_button)
    )
    return [
        Shortcut("P", "paint the structure", paint),
        Shortcut("2", "paint the structure", paint),
        Shortcut("B", "paint background", background),
        Shortcut("E", "erase: no longer annotated", erase),
        Shortcut("1", "erase: no longer annotated", erase),
        Shortcut("[", "smaller brush", own(lambda: layers.step_brush(-1))),
        Shortcut("]", "larger brush", own(lambda: layers.step_brush(1))),
    ]


def cancel_click(session: Session, layers: CaseLayers) -> object:
    """Stop waiting for a click; without one, the key is napari's."""
    if not layers.cancel_click():
        return PASS_ON
    session.message.emit("info", "")
    return None


def remove_last_point(layers: CaseLayers) -> object:
    """Remove the last point of an unfinished outline; without one, the key is the widget's."""
    label = layers.find_layer("label")
    return None if label is not None and label.remove_last_point() else PASS_ON


def make_actions(
    session: Session, shortcuts: list[Shortcut]
) -> dict[KeyPress, Callable[[], object]]:
    """Return the actions by key; their errors are shown as messages."""
    return {
        KeyPress.parse(shortcut.key): report_errors(session, shortcut.action)
        for shortcut in shortcuts
    }


class ShortcutsDialog(QDialog):
    """All shortcuts, with frequent ones of napari beside them."""

    def __init__(self, parent: QWidget, shortcuts: list[Shortcut]) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keyboard shortcuts")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        table = QWidget()
        grid = QGridLayout(table)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        grid.setHorizontalSpacing(18)
        keys: dict[str, list[str]] = {}  # by what they do
        for shortcut in shortcuts:
            if not shortcut.key.startswith("Control-"):
                keys.setdefault(shortcut.description, []).append(format_key(shortcut.key))
        rows = [(" or ".join(names), text) for text, names in keys.items()]
        rows.append((f"Ctrl+1 … Ctrl+{NUMBER_KEYS}", "structure at that position in the list"))
        _add_table(grid, 0, 0, "DyCON", rows)
        _add_table(grid, 0, 2, "napari", NAPARI_SHORTCUTS)
        _add_table(grid, len(NAPARI_SHORTCUTS) + 2, 2, "Mouse", MOUSE)
        grid.setColumnStretch(3, 1)
        grid.setRowStretch(grid.rowCount(), 1)
        self._scroll_area = QScrollArea()
        self._scroll_area.setWidgetResizable(True)
        self._scroll_area.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll_area.setWidget(table)
        layout = QVBoxLayout(self)
        layout.addWidget(self._scroll_area)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.close)
        layout.addWidget(buttons)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """Show the whole table where the screen is large enough, and scroll it elsewhere."""
        super().showEvent(event)
        around = self.sizeHint() - self._scroll_area.sizeHint()
        border = 2 * SCROLL_BORDER_PX
        size = self._scroll_area.widget().sizeHint() + around + QSize(border, border)
        screen = self.parentWidget().screen()
        if screen is not None:
            available = screen.availableGeometry().size() - QSize(0, TITLE_BAR_PX)
            bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
            is_scrolled = size.height() > available.height()
            size = (size + QSize(bar if is_scrolled else 0, 0)).boundedTo(available)
        self.resize(size)


def _add_table(
    grid: QGridLayout, row: int, column: int, title: str, entries: Sequence[tuple[str, str]]
) -> None:
    """Add a title and rows of keys and what they do."""
    grid.addWidget(QLabel(f"<b>{title}</b>"), row, column, 1, 2)
    for number, (key, text) in enumerate(entries, start=row + 1):
        grid.addWidget(QLabel(f"<b>{key}</b>"), number, column)
        grid.addWidget(QLabel(text), number, column + 1)


def format_key(key: str) -> str:
    """Format a key for display: ``Shift-N`` becomes ``Shift+N``."""
    return key.replace("Control", "Ctrl").replace("-", "+")
