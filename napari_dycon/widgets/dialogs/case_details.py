"""Dialog with the details of a case."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.application.cases.details import CaseDetails
from napari_dycon.core.text import escape_control_characters
from napari_dycon.widgets.window.helpers import make_plain_label


class CaseDetailsDialog(QDialog):
    """Names and values, which can be selected and copied."""

    def __init__(self, parent: QWidget, details: CaseDetails) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Details: {escape_control_characters(details.case.display_name)}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.text = "\n".join(f"{name}\t{value}" for name, value in details.rows)
        content = QWidget()
        grid = QGridLayout(content)
        grid.setVerticalSpacing(3)
        grid.setHorizontalSpacing(14)
        grid.setColumnStretch(1, 1)
        for row, (name, value) in enumerate(details.rows):
            name_label = make_plain_label(name, wrap=False)
            value_label = make_plain_label(_allow_line_breaks(value))
            value_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            name_label.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignRight)
            grid.addWidget(name_label, row, 0)
            grid.addWidget(value_label, row, 1)
        grid.setRowStretch(len(details.rows), 1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setWidget(content)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.close)
        copy_button = QPushButton("Copy")
        copy_button.setToolTip("Copy all details to the clipboard")
        copy_button.clicked.connect(lambda: QApplication.clipboard().setText(self.text))
        buttons.addButton(copy_button, QDialogButtonBox.ButtonRole.ActionRole)
        layout = QVBoxLayout(self)
        layout.addWidget(scroll, 1)
        layout.addWidget(buttons)
        height = content.sizeHint().height() + buttons.sizeHint().height() + 48
        self.resize(460, min(height, 480))


def _allow_line_breaks(text: str) -> str:
    """Let Qt break long paths after each folder."""
    return text.replace("/", "/\u200b").replace("\\", "\\\u200b")
