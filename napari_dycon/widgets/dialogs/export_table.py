"""Table of the masks that an export would write, with a checkbox per case."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.exports.selection import PlannedMask, is_selected_by_default, summarize_selection
from napari_dycon.widgets.dialogs.series_selection import STYLE
from napari_dycon.widgets.window.helpers import make_plain_label, signals_blocked

COLUMNS = ("Case", "Status", "Mask")
CHECKING_TEXT = "Checking the cases…"


class ExportTable(QWidget):
    """Cases with their status and what the mask of each is; finished ones are selected."""

    selection_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._masks: list[PlannedMask] = []
        self._source = ""
        self._changed_by_user: dict[str, bool] = {}
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(COLUMNS)
        self.tree.setAccessibleName("Cases to export")
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        self.tree.setStyleSheet(STYLE)
        self.tree.setMinimumHeight(130)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.tree.itemChanged.connect(self._on_item_changed)
        self.summary_label = make_plain_label(CHECKING_TEXT)
        self.all_button, self.none_button = QPushButton("All"), QPushButton("None")
        self.all_button.setToolTip("Select all cases that have a mask")
        self.none_button.setToolTip("Select no case")
        for button, checked in ((self.all_button, True), (self.none_button, False)):
            button.setAutoDefault(False)
            button.clicked.connect(lambda _=False, checked=checked: self._check_all(checked))
        row = QHBoxLayout()
        row.addWidget(self.summary_label, 1)
        row.addWidget(self.all_button)
        row.addWidget(self.none_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tree, 1)
        layout.addLayout(row)

    def show_checking(self) -> None:
        """Show that the masks are not known yet."""
        self.set_masks([], "")
        self.summary_label.setText(CHECKING_TEXT)

    def set_masks(self, masks: Sequence[PlannedMask], source: str) -> None:
        """Show planned masks; what the user selected stays selected for the same source.

        Parameters
        ----------
        source : see ``ExportOptions``
        """
        if source != self._source:
            self._changed_by_user.clear()
        self._masks, self._source = list(masks), source
        position = self.tree.verticalScrollBar().value()
        with signals_blocked(self.tree):
            self.tree.clear()
            self.tree.addTopLevelItems([self._make_item(mask) for mask in self._masks])
        self.tree.verticalScrollBar().setValue(position)
        self._update_summary()

    @property
    def selected(self) -> list[PlannedMask]:
        """The selected masks."""
        return [
            mask
            for row, mask in enumerate(self._masks)
            if self.tree.topLevelItem(row).checkState(0) == Qt.CheckState.Checked
        ]

    def _make_item(self, mask: PlannedMask) -> QTreeWidgetItem:
        can_export = _can_export(mask)
        text = mask.origin if can_export else mask.left_out
        cells = (mask.name, mask.status.display_name, str(text))
        item = QTreeWidgetItem([escape_control_characters(cell) for cell in cells])
        if mask.name != mask.case:
            item.setToolTip(0, escape_rich_text(f"Files are named {mask.case}"))
        if mask.origin is not None and mask.origin.is_predicted and mask.run:
            item.setToolTip(2, f"Prediction of run {mask.run}")
        if can_export:  # others have no checkbox
            default = is_selected_by_default(mask, self._source)
            item.setCheckState(0, _check_state(self._changed_by_user.get(mask.case, default)))
        return item

    def _on_item_changed(self, item: QTreeWidgetItem) -> None:
        mask = self._masks[self.tree.indexOfTopLevelItem(item)]
        self._changed_by_user[mask.case] = item.checkState(0) == Qt.CheckState.Checked
        self._update_summary()

    def _check_all(self, checked: bool) -> None:
        with signals_blocked(self.tree):
            for row, mask in enumerate(self._masks):
                item = self.tree.topLevelItem(row)
                if _can_export(mask):
                    item.setCheckState(0, _check_state(checked))
                    self._changed_by_user[mask.case] = checked
        self._update_summary()

    def _update_summary(self) -> None:
        self.summary_label.setText(summarize_selection(self.selected, len(self._masks)))
        self.selection_changed.emit()


def _can_export(mask: PlannedMask) -> bool:
    return mask.origin is not None and mask.left_out is None


def _check_state(checked: bool) -> Qt.CheckState:
    return Qt.CheckState.Checked if checked else Qt.CheckState.Unchecked
