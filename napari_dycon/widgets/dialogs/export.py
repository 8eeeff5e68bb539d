"""Export dialog."""

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
from napari_dycon.widgets.window.helpers import make_hint_label, make_plain_label

MAX_HEIGHT_PX = 480  # pixels without the buttons, to fit a small screen with its bars
MASK_SOURCES = {
    "auto": "labels, predictions where unlabeled",
    "labels": "labels only",
    "predictions": "predictions only",
}
FORMAT_HINTS = {
    "nnunet": "Scans are copied; free text in their headers is removed.",
    "monai-bundle": "The newest model with everything MONAI needs to run it.",
    "report": "One HTML page with images, volumes and agreement, plus a CSV table.",
    "dicom-seg": "One file per case, linked to its series. Select a standard term for each "
    "structure.",
}


class ExportDialog(QDialog):
    """Format, folder and options of an export."""

    def __init__(self, parent: QWidget, project: Project) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export")
        self.setMinimumWidth(480)
        self.format_ = QComboBox()
        for name, text in FORMATS.items():
            self.format_.addItem(text[0].upper() + text[1:], name)
        self.out = QLineEdit(str(project.path.parent / f"{project.name}-export"))
        self.mask_source = QComboBox()
        for name, text in MASK_SOURCES.items():
            self.mask_source.addItem(text[0].upper() + text[1:], name)
        self.uncertainty = QCheckBox("Also export uncertainty maps")
        self.keep_identity = QCheckBox("Keep patient name and dates")
        self.keep_identity.setToolTip(
            "Some archives reject files without patient data. By default patient data is removed"
        )
        self.terms: dict[int, QComboBox] = {}
        self._format_hint = make_hint_label("")
        self._form = QFormLayout()
        self._form.addRow("Format", self.format_)
        self._form.addRow("Folder", self._make_folder_row())
        self._form.addRow("", self._format_hint)
        self._form.addRow("Include", self.mask_source)
        self._form.addRow("", self.uncertainty)
        self._form.addRow("", self.keep_identity)
        self._terms_widget = QWidget()  # hidden as a whole: Qt keeps spacing between hidden rows
        rows = QFormLayout(self._terms_widget)
        rows.setContentsMargins(0, 0, 0, 0)
        for info in project.classes:
            self.terms[info.value] = _make_terminology_combo(info.name)
            name = make_plain_label(f"Term for {info.name}", wrap=False)
            rows.addRow(name, self.terms[info.value])
        self._form.addRow(self._terms_widget)
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

    def get_answers(self) -> tuple[str, Path, dict[str, Any]]:
        """Format, folder and options, as ``Session.export`` takes them."""
        name = str(self.format_.currentData())
        options: dict[str, Any] = {}
        if name in FILE_SUFFIXES:
            options["source"] = self.mask_source.currentData()
            options["uncertainty"] = self.uncertainty.isChecked()
        if name == "dicom-seg":
            options["keep_identity"] = self.keep_identity.isChecked()
            options["codes"] = {
                value: box.itemData(box.currentIndex()) for value, box in self.terms.items()
            }
        return name, Path(self.out.text().strip()), options

    def _make_folder_row(self) -> QWidget:
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

    def _set_row_visible(self, widget: QWidget, visible: bool) -> None:
        widget.setVisible(visible)  # Qt 5 cannot hide a row as a whole
        if (label := self._form.labelForField(widget)) is not None:
            label.setVisible(visible)

    def _refresh(self, *_: object) -> None:
        name = str(self.format_.currentData())
        self._format_hint.setText(
            FORMAT_HINTS.get(name, "One file per case, on the grid of its scan.")
        )
        for widget in (self.mask_source, self.uncertainty):
            self._set_row_visible(widget, name in FILE_SUFFIXES)
        for widget in (self.keep_identity, self._terms_widget):
            self._set_row_visible(widget, name == "dicom-seg")
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(
            bool(self.out.text().strip())
        )
        size_hint = self._inner.sizeHint()
        scrollbar_width = self._scroll.verticalScrollBar().sizeHint().width()
        self._scroll.setMinimumSize(
            size_hint.width() + scrollbar_width, min(size_hint.height(), MAX_HEIGHT_PX)
        )
        self._scroll.setMaximumHeight(size_hint.height())
        self.adjustSize()


class _TerminologyCombo(QComboBox):
    """Ignores the mouse wheel, so that scrolling the dialog does not change a term."""

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 (Qt's name)
        event.ignore()


def _make_terminology_combo(name: str) -> QComboBox:
    """Create a searchable list of coded terms; the one suggested by the name is selected."""
    combo_box = _TerminologyCombo()
    combo_box.setEditable(True)
    combo_box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
    for code in list_codes():
        combo_box.addItem(code.meaning, code)
    completer = QCompleter(combo_box.model(), combo_box)
    completer.setFilterMode(Qt.MatchFlag.MatchContains)
    completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
    combo_box.setCompleter(completer)
    suggested = suggest(name)
    combo_box.setCurrentIndex(
        next(i for i in range(combo_box.count()) if combo_box.itemData(i) == suggested)
    )

    def accept_typed_term() -> None:
        """Accept typed text if it is a term, otherwise restore the previous one."""
        index = combo_box.findText(combo_box.currentText(), Qt.MatchFlag.MatchFixedString)
        combo_box.setCurrentIndex(index if index >= 0 else combo_box.currentIndex())
        combo_box.setEditText(combo_box.itemText(combo_box.currentIndex()))

    combo_box.lineEdit().editingFinished.connect(accept_typed_term)
    combo_box.setToolTip(
        "Type to search. Other programs identify the structure by this standard term"
    )
    return combo_box
