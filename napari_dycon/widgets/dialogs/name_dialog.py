"""Dialog for one name, which says at once why a name cannot be used."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QDialog, QDialogButtonBox, QLineEdit, QVBoxLayout, QWidget

from napari_dycon.widgets.window.helpers import make_hint_label, make_plain_label


class NameDialog(QDialog):
    """Text field whose content is checked at every keystroke.

    Parameters
    ----------
    find_error : returns what is wrong with a name; empty if it can be used
    """

    def __init__(
        self,
        parent: QWidget,
        title: str,
        label: str,
        find_error: Callable[[str], str],
        *,
        text: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setMinimumWidth(320)
        self._find_error = find_error
        self.field = QLineEdit(text)
        self.field.setAccessibleName(label)
        self.field.selectAll()
        self.error_label = make_plain_label(" ")
        caption = make_plain_label(label, wrap=False)
        caption.setBuddy(self.field)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(caption)
        layout.addWidget(self.field)
        layout.addWidget(self.error_label)
        if hint:
            layout.addWidget(make_hint_label(hint))
        layout.addWidget(self.buttons)
        self.field.textChanged.connect(self._check)
        self._check()

    @property
    def name(self) -> str:
        """The name without spaces at its ends."""
        return str(self.field.text()).strip()

    def _check(self, _: str = "") -> None:
        error = self._find_error(self.name)
        self.error_label.setText(error or " ")  # the space keeps its line
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(not error)


def ask_name(dialog: NameDialog) -> str | None:
    """Show a dialog and return the name; ``None`` if it was cancelled."""
    accepted = dialog.exec()
    name = dialog.name
    dialog.deleteLater()
    return name if accepted else None
