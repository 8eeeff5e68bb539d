"""Dialogs for DICOM series: which ones to open, and whether to resample."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QMessageBox,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.errors import IrregularSlicesError
from napari_dycon.io.dicom.discovery import Series
from napari_dycon.widgets.window.helpers import make_hint_label

COLUMNS = ("Series", "Modality", "Voxels", "Spacing (mm)", "Images")
MAX_ROWS_SHOWN = 12
# napari's unchecked boxes are hard to distinguish from the background.
STYLE = """
QTreeView::item, QHeaderView::section { padding: 3px 8px; }
QTreeView::indicator:unchecked { border: 1px solid gray; }
"""


class SeriesDialog(QDialog):
    """Table of series with checkboxes; the largest one is selected.

    Parameters
    ----------
    series : those with several images, at least one
    n_single_images : number of other single images, which cannot be opened
    """

    def __init__(
        self, series: Sequence[Series], n_single_images: int, parent: QWidget | None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Select series")
        self._series = list(series)
        self.table = QTreeWidget()
        self.table.setHeaderLabels(COLUMNS)
        self.table.setRootIsDecorated(False)
        self.table.setAllColumnsShowFocus(True)
        self.table.setUniformRowHeights(True)
        self.table.setStyleSheet(STYLE)
        largest = max(self._series, key=lambda s: len(s.slices))
        for entry in self._series:
            item = QTreeWidgetItem(
                [
                    escape_control_characters(entry.description) or "no description",
                    entry.modality,
                    entry.size,
                    entry.spacing,
                    str(len(entry.slices)),
                ]
            )
            for column in range(2, len(COLUMNS)):
                item.setTextAlignment(
                    column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                )
            item.setToolTip(0, escape_rich_text(entry.summary))
            item.setCheckState(0, _check_state(entry is largest))
            self.table.addTopLevelItem(item)
        self.table.setCurrentItem(self.table.topLevelItem(self._series.index(largest)))
        header = self.table.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(2, len(COLUMNS)):
            self.table.headerItem().setTextAlignment(column, Qt.AlignmentFlag.AlignRight)

        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.table.itemChanged.connect(lambda _item, _column: self._update_state())
        self.table.itemClicked.connect(self._on_item_clicked)

        single_images_note = ""
        if n_single_images == 1:
            single_images_note = " One single image is ignored because it is not a volume."
        elif n_single_images:
            single_images_note = (
                f" {n_single_images} single images are ignored because they are not volumes."
            )
        layout = QVBoxLayout(self)
        layout.addWidget(
            make_hint_label(
                f"This folder contains {len(self._series)} series. Select those to open; each "
                f"becomes a layer.{single_images_note}"
            )
        )
        layout.addWidget(self.table, 1)
        layout.addWidget(self.buttons)
        self.resize(800, 150 + 26 * min(len(self._series), MAX_ROWS_SHOWN))
        self._update_state()

    @property
    def selected_series(self) -> list[Series]:
        """Selected series."""
        return [
            one
            for row, one in enumerate(self._series)
            if self.table.topLevelItem(row).checkState(0) == Qt.CheckState.Checked
        ]

    def _on_item_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if column != 0:  # the first column has the checkbox itself
            item.setCheckState(0, _check_state(item.checkState(0) != Qt.CheckState.Checked))

    def _update_state(self) -> None:
        self.buttons.button(QDialogButtonBox.StandardButton.Open).setEnabled(
            bool(self.selected_series)
        )


def choose_series(
    series: Sequence[Series], n_single_images: int, parent: QWidget | None
) -> list[Series]:
    """Ask which series to open; returns an empty list when cancelled."""
    dialog = SeriesDialog(series, n_single_images, parent)
    accepted = dialog.exec_() == QDialog.DialogCode.Accepted
    selected = dialog.selected_series if accepted else []
    dialog.deleteLater()
    return selected


def ask_to_resample(error: IrregularSlicesError, parent: QWidget | None) -> bool:
    """Ask whether to resample a series with irregular or tilted slices."""
    box = QMessageBox(parent)
    box.setObjectName("dycon-resample")
    box.setWindowTitle("Irregular slices")
    box.setIcon(QMessageBox.Icon.Question)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(f"{escape_control_characters(error.finding)}.")
    box.setInformativeText(
        "Resampling interpolates regularly spaced, upright slices; the files are not changed. "
        "Small structures between widely spaced slices may be lost or distorted. Labels will "
        "belong to the resampled scan and cannot be exported as DICOM."
    )
    resample = box.addButton("Resample", QMessageBox.ButtonRole.AcceptRole)
    cancel = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(cancel)
    box.setEscapeButton(cancel)
    box.exec_()
    accepted = box.clickedButton() is resample
    box.deleteLater()
    return accepted


def _check_state(checked: bool) -> Qt.CheckState:
    return Qt.CheckState.Checked if checked else Qt.CheckState.Unchecked
