"""Dialog that restores a case that was removed from the project."""

from __future__ import annotations

import time
from collections.abc import Sequence

from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.core.text import escape_control_characters
from napari_dycon.project.editing.removed_cases import RemovedCase
from napari_dycon.widgets.window.helpers import make_hint_label


class RemovedCasesDialog(QDialog):
    """List of the removed cases, from which one is chosen."""

    def __init__(self, parent: QWidget, removed_cases: Sequence[RemovedCase]) -> None:
        super().__init__(parent)
        self.setWindowTitle("Restore removed case")
        self._removed_cases = removed_cases
        self.list = QListWidget()
        self.list.setAccessibleName("Removed cases")
        for removed in removed_cases:
            date = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(removed.removed_at, 0.0)))
            name = escape_control_characters(removed.case.display_name)
            status = removed.case.status.display_name
            self.list.addItem(QListWidgetItem(f"{name}  ({status}; removed {date})"))
        self.list.setCurrentRow(0)
        self.list.itemDoubleClicked.connect(lambda _: self.accept())
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.restore_button = self.buttons.addButton(
            "Restore", QDialogButtonBox.ButtonRole.AcceptRole
        )
        self.restore_button.setEnabled(bool(removed_cases))
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(
            make_hint_label(
                "The case is added to the project again, with its label and predictions."
                if removed_cases
                else "No case was removed from this project."
            )
        )
        layout.addWidget(self.list, 1)
        layout.addWidget(self.buttons)
        self.resize(420, 300)

    @property
    def case_id(self) -> str:
        """Id of the chosen case; empty if there is none."""
        row = self.list.currentRow()
        return self._removed_cases[row].case.id if row >= 0 else ""
