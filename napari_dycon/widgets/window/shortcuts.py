"""Keys of everything frequent, free of napari's own, and the card that lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_dycon.widgets.annotate.structure_list import KEYS
from napari_dycon.widgets.window.helpers import guarded

if TYPE_CHECKING:
    from napari_dycon.widgets.panel import DyconPanel

NAPARI_KEYS = (
    ("2, P / 1, E / 4, F", "brush / eraser (paints background) / bucket"),
    ("3", "polygon; a double click closes it, Esc drops it"),
    ("[ and ]", "smaller and larger brush"),
    ("Ctrl+Z, Ctrl+Shift+Z", "undo, redo"),
    ("Space (held)", "move and zoom while painting"),
    ("← →", "slice before and after"),
    ("Ctrl+E", "slices across the next axis"),
    ("Ctrl+Y", "3D view and back"),
)


@dataclass(frozen=True)
class Key:
    """A key in napari's spelling, what it does in words, and in code."""

    key: str
    text: str
    work: Callable[[], object]


def keys_of(panel: DyconPanel) -> list[Key]:
    """All keys of a panel, in the order of work."""
    tools, brush, review = panel.annotate.tools, panel.annotate.brush, panel.review
    drawing = panel.session.annotation
    viewer = panel.viewer
    found = [
        Key("I", "fill the structure between annotated slices", tools.fill_between),
        Key("W", "copy the structure from the slice before", lambda: tools.copy_neighbor(-1)),
        Key("Shift-W", "copy it from the slice after", lambda: tools.copy_neighbor(1)),
        Key("G", "grow from strokes", tools.grow_strokes),
        Key("Shift-G", "box to grow in: draw, change, back to the brush", panel.layers.box.toggle),
        Key("A", "accept what was grown", drawing.accept_proposal),
        Key("D", "discard what was grown", drawing.discard_proposal),
        Key(
            "R",
            "paint only gray values like those under the mouse",
            lambda: brush.pick_at(viewer.cursor.position),
        ),
        Key("Shift-R", "paint all gray values", lambda: drawing.set_paint_range(None)),
        Key("S", "this slice is done", panel.annotate.finish_slice),
        Key("N", "next uncertain place", review.next_place),
        Key("Shift-N", "uncertain place before", review.previous_place),
        Key("J", "next case worth labeling", review.next_case),
        Key("T", "show or hide the prediction", lambda: review.toggle("prediction")),
        Key("H", "show or hide the heat map", lambda: review.toggle("uncertainty")),
        Key("K", "show or hide the label", lambda: review.toggle("label")),
        Key("F1", "this card", lambda: show_card(panel)),
    ]
    for number in range(1, KEYS + 1):
        found.append(
            Key(
                f"Control-{number}",
                f"structure {number} of the list",
                lambda number=number: panel.annotate.structures.choose_number(number),  # type: ignore[misc]
            )
        )
    return found


def bind(provider: Viewer | Layer, keys: list[Key], panel: DyconPanel) -> None:
    """Bind keys to a viewer, or to a layer before its own keys; errors become messages."""
    for key in keys:
        work = guarded(panel.session, key.work)

        def pressed(_: Any, work: Callable[[], object] = work) -> None:
            work()

        provider.bind_key(key.key, pressed, overwrite=True)


def unbind(viewer: Viewer, keys: list[Key]) -> None:
    """Give the keys back."""
    for key in keys:
        viewer.bind_key(key.key, None, overwrite=True)


def show_card(panel: DyconPanel) -> None:
    """Show the card; it does not block the window."""
    card = KeyCard(panel, keys_of(panel))
    card.show()


class KeyCard(QDialog):
    """All keys on a page, napari's frequent ones below."""

    def __init__(self, parent: QWidget, keys: list[Key]) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keys")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        grid = QGridLayout()
        grid.setVerticalSpacing(2)
        grid.setHorizontalSpacing(18)
        rows = [(readable(k.key), k.text) for k in keys if not k.key.startswith("Control-")]
        rows.append((f"Ctrl+1 … Ctrl+{KEYS}", "structure of that place in the list"))
        for place, (title, part) in enumerate((("DyCON", rows), ("napari", NAPARI_KEYS))):
            grid.addWidget(QLabel(f"<b>{title}</b>"), 0, 2 * place, 1, 2)
            for number, (key, text) in enumerate(part, start=1):
                grid.addWidget(QLabel(f"<b>{key}</b>"), number, 2 * place)
                grid.addWidget(QLabel(text), number, 2 * place + 1)
        layout = QVBoxLayout(self)
        layout.addLayout(grid)
        layout.addWidget(QLabel("Keys work while the canvas is in focus: click into it once."))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.close)
        layout.addWidget(buttons)


def readable(key: str) -> str:
    """``Shift-N`` as people write it."""
    return key.replace("Control", "Ctrl").replace("-", "+")
