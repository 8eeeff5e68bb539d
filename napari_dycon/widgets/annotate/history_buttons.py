"""Buttons for undo and redo, which say what they would change."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_dycon.core.text import escape_rich_text
from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.layers.edit_history import describe_edit
from napari_dycon.widgets.layers.napari_layers import LabelEdit
from napari_dycon.widgets.window.helpers import make_button, set_enabled

BUTTON_PX = 28
UNDO_KEY, REDO_KEY = "Ctrl+Z", "Ctrl+Shift+Z"


class HistoryButtons(QWidget):
    """Undo and redo of the label; disabled where there is nothing to undo or to redo."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.undo_button = make_button("↶", "", self._undo)
        self.redo_button = make_button("↷", "", self._redo)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        for button, name in ((self.undo_button, "Undo"), (self.redo_button, "Redo")):
            button.setAccessibleName(name)
            button.setMinimumWidth(BUTTON_PX)
            row.addWidget(button)
        for signal in (
            layers.history_changed,
            layers.axis_changed,
            session.case_shown,
            session.cases_changed,
        ):
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Enable the buttons and say what they would change."""
        label = self.layers.find_layer("label")
        edits = (None, None) if label is None else label.read_history()
        blocked_reason = self.session.edit_blocked_reason()
        for button, name, key, edit in (
            (self.undo_button, "Undo", UNDO_KEY, edits[0]),
            (self.redo_button, "Redo", REDO_KEY, edits[1]),
        ):
            what = f": {self._describe(edit)}" if edit is not None else ""
            button.setProperty("dycon_tip", f"{name}{escape_rich_text(what)} ({key})")
            reason = "" if edit is not None else f"there is nothing to {name.lower()}"
            set_enabled(button, blocked_reason or reason)
            button.setAccessibleName(f"{name}{what}")

    def _describe(self, edit: LabelEdit) -> str:
        names = {c.value: c.name for c in self.layers.classes()}
        return describe_edit(edit, self.layers.axis, names)

    def _undo(self) -> None:
        if (layer := self.layers.find_layer("label")) is not None:
            layer.undo()

    def _redo(self) -> None:
        if (layer := self.layers.find_layer("label")) is not None:
            layer.redo()
