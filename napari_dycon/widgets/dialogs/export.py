"""Dialog that asks what to export, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QCompleter,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.exports.masks import FILE_SUFFIXES
from napari_dycon.exports.registry import FORMATS
from napari_dycon.io.dicom.terminology import list_codes, suggest
from napari_dycon.project.store import Project
from napari_dycon.widgets.window.helpers import hint, plain_label

MOST_HEIGHT = 480  # pixels without the buttons, to fit a small screen with its bars
WHAT = {
    "auto": "labels, completed by predictions",
    "labels": "labels alone",
    "predictions": "predictions alone",
}
ABOUT = {
    "nnunet": "Scans are copied into the layout, without any free text of their headers.",
    "monai-bundle": "The network of the newest run, with all that MONAI needs to run it.",
    "report": "One page with pictures, volumes and agreement, and the same figures as CSV.",
    "dicom-seg": "One file a case that refers to its series; terms say what a structure is.",
}


class ExportDialog(QDialog):
    """Format, folder, and what only some formats need."""

    def __init__(self, parent: QWidget, project: Project) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export")
        self.setMinimumWidth(480)
        self.format_ = QComboBox()
        for name, text in FORMATS.items():
            self.format_.addItem(text[0].upper() + text[1:], name)
        self.out = QLineEdit(str(project.path.parent / f"{project.name}-export"))
        self.what = QComboBox()
        for name, text in WHAT.items():
            self.what.addItem(text[0].upper() + text[1:], name)
        self.uncertainty = QCheckBox("also the uncertainty of each prediction")
        self.identity = QCheckBox("keep the patient's name and dates in the files")
        self.identity.setToolTip(
            "Archives may refuse files without a patient; without this tick nobody is named"
        )
        self.terms: dict[int, QComboBox] = {}
        self._about = hint("")
        self._form = QFormLayout()
        self._form.addRow("What", self.format_)
        self._form.addRow("Folder", self._folder())
        self._form.addRow("", self._about)
        self._form.addRow("Masks of", self.what)
        self._form.addRow("", self.uncertainty)
        self._form.addRow("", self.identity)
        self._all_terms = QWidget()  # hidden as a whole: Qt keeps room between hidden rows
        rows = QFormLayout(self._all_terms)
        rows.setContentsMargins(0, 0, 0, 0)
        for info in project.classes:
            self.terms[info.value] = _terms(info.name)
            name = plain_label(f"Term for {info.name}", wrap=False)
            rows.addRow(name, self.terms[info.value])
        self._form.addRow(self._all_terms)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setText("Export")
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self._inner = QWidget()
        self._inner.setLayout(self._form)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._scroll = QScrollArea()  # a project may have many structures
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(self._inner)
        layout = QVBoxLayout(self)
        layout.addWidget(self._scroll, 1)
        layout.addWidget(self.buttons)
        self.format_.currentIndexChanged.connect(self._refresh)
        self.out.textChanged.connect(self._refresh)
        self._refresh()

    def answers(self) -> tuple[str, Path, dict[str, Any]]:
        """Format, folder and options, as ``Session.export`` takes them."""
        name = str(self.format_.currentData())
        options: dict[str, Any] = {}
        if name in FILE_SUFFIXES:
            options["source"] = self.what.currentData()
            options["uncertainty"] = self.uncertainty.isChecked()
        if name == "dicom-seg":
            options["keep_identity"] = self.identity.isChecked()
            options["codes"] = {
                value: box.itemData(box.currentIndex()) for value, box in self.terms.items()
            }
        return name, Path(self.out.text().strip()), options

    def _folder(self) -> QWidget:
        browse = QPushButton("Browse…")

        def choose() -> None:
            chosen = QFileDialog.getExistingDirectory(self, "Export to", self.out.text())
            if chosen:
                self.out.setText(chosen)

        browse.clicked.connect(lambda _checked=False: choose())
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.out, 1)
        layout.addWidget(browse)
        return row

    def _show_row(self, widget: QWidget, shown: bool) -> None:
        widget.setVisible(shown)  # Qt 5 cannot hide a row as a whole
        if (label := self._form.labelForField(widget)) is not None:
            label.setVisible(shown)

    def _refresh(self, *_: object) -> None:
        name = str(self.format_.currentData())
        self._about.setText(ABOUT.get(name, "One file a case, on its scan's own grid."))
        for widget in (self.what, self.uncertainty):
            self._show_row(widget, name in FILE_SUFFIXES)
        for widget in (self.identity, self._all_terms):
            self._show_row(widget, name == "dicom-seg")
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(
            bool(self.out.text().strip())
        )
        wanted = self._inner.sizeHint()
        bar = self._scroll.verticalScrollBar().sizeHint().width()
        self._scroll.setMinimumSize(wanted.width() + bar, min(wanted.height(), MOST_HEIGHT))
        self._scroll.setMaximumHeight(wanted.height())
        self.adjustSize()


class _Terms(QComboBox):
    """Leaves the wheel to the dialog: scrolling through it must change no term."""

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 (Qt's name)
        event.ignore()


def _terms(name: str) -> QComboBox:
    """List of coded terms, searched by typing; the one that a name suggests is chosen."""
    box = _Terms()
    box.setEditable(True)
    box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
    for code in list_codes():
        box.addItem(code.meaning, code)
    completer = QCompleter(box.model(), box)
    completer.setFilterMode(Qt.MatchFlag.MatchContains)
    completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
    box.setCompleter(completer)
    wanted = suggest(name)
    box.setCurrentIndex(next(i for i in range(box.count()) if box.itemData(i) == wanted))

    def settle() -> None:
        """Take what was typed when it is a term, else go back to the one before."""
        found = box.findText(box.currentText(), Qt.MatchFlag.MatchFixedString)
        box.setCurrentIndex(found if found >= 0 else box.currentIndex())
        box.setEditText(box.itemText(box.currentIndex()))

    box.lineEdit().editingFinished.connect(settle)
    box.setToolTip("Type to search; programs understand the term whatever the structure is called")
    return box
