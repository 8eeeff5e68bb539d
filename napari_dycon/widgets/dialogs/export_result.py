"""Dialog that reports a finished export and opens its folder."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QPlainTextEdit, QVBoxLayout, QWidget

from napari_dycon.core.text import escape_control_characters
from napari_dycon.exports.result import ExportResult
from napari_dycon.widgets.window.helpers import make_plain_label

LIST_HEIGHT_PX = 110


class ExportResultDialog(QDialog):
    """What was written, which cases were left out and why; does not block the window."""

    def __init__(self, parent: QWidget | None, result: ExportResult) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export finished")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(480)
        self.text = make_plain_label(result.describe())
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.left_out = QPlainTextEdit(
            "\n".join(
                escape_control_characters(f"{case.case}: {case.detail or case.reason}")
                for case in result.left_out
            )
        )
        self.left_out.setReadOnly(True)
        self.left_out.setAccessibleName("Cases that were left out")
        self.left_out.setFixedHeight(LIST_HEIGHT_PX)
        self.left_out.setVisible(bool(result.left_out))
        self.error_label = make_plain_label()
        self.error_label.setVisible(False)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        role = QDialogButtonBox.ButtonRole.ActionRole
        self.open_button = None
        document = result.document
        if document is not None:
            self.open_button = self.buttons.addButton("Open", role)
            self.open_button.clicked.connect(lambda _=False: self._open(document))
        name = "Open folder" if document is None else "Show in folder"
        self.folder_button = self.buttons.addButton(name, role)
        self.folder_button.clicked.connect(lambda _=False: self._open(result.out))
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        for widget in (self.text, self.left_out, self.error_label, self.buttons):
            layout.addWidget(widget)

    def _open(self, path: Path) -> None:
        """Open a file or folder in the program that the system has for it."""
        if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))):
            self.error_label.setText(
                f"This system has no program to open {escape_control_characters(path)}."
            )
            self.error_label.setVisible(True)
            self.adjustSize()
