"""Searchable list of the coded terms of DICOM segmentations."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QComboBox, QCompleter

from napari_dycon.io.dicom.terminology import list_codes, suggest


class _TerminologyCombo(QComboBox):
    """Ignores the mouse wheel, so that scrolling the dialog does not change a term."""

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 (Qt's name)
        event.ignore()


def make_terminology_combo(name: str) -> QComboBox:
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
