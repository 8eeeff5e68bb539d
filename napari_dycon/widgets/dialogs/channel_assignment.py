"""Dialog that assigns images to channels of cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import QAbstractItemModel, QModelIndex, Qt, QTimer
from qtpy.QtGui import QPainter, QStandardItem, QStandardItemModel
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionComboBox,
    QStyleOptionViewItem,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.core.wording import format_count
from napari_dycon.errors import UserError
from napari_dycon.project.importing.channel_matching import (
    CaseDraft,
    ImageCandidate,
    assign_channels,
    candidates_from,
)
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.widgets.dialogs.progress import CancelledError, run_with_dialog
from napari_dycon.widgets.dialogs.prompt import show_warning_box
from napari_dycon.widgets.window.helpers import make_button, make_hint_label

ROW_HEIGHT_PX = 32
MAX_ROWS_SHOWN = 12
MARGIN_PX = 24
NOT_CHOSEN = "select…"


class ImageChoiceDelegate(QStyledItemDelegate):
    """Cells that look like combo boxes and become one when clicked.

    Creating a real combo box takes ten milliseconds per cell, a minute for many cases.
    """

    def __init__(self, images: QStandardItemModel, table: QTableWidget) -> None:
        super().__init__(table)
        self._images = images
        self._style_source = QComboBox(table)  # provides the style
        self._style_source.hide()

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw a closed combo box.

        Long names are elided in the middle, since their ends differ most.
        """
        box = QStyleOptionComboBox()
        box.rect = option.rect
        box.state = option.state
        box.palette = option.palette
        box.fontMetrics = option.fontMetrics
        style = self._style_source.style()
        field_width = style.subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            box,
            QStyle.SubControl.SC_ComboBoxEditField,
            self._style_source,
        ).width()
        box.currentText = option.fontMetrics.elidedText(
            str(index.data()), Qt.TextElideMode.ElideMiddle, field_width - MARGIN_PX
        )
        style.drawComplexControl(
            QStyle.ComplexControl.CC_ComboBox, box, painter, self._style_source
        )
        style.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, box, painter, self._style_source)

    def createEditor(  # noqa: N802 (Qt's name)
        self, parent: QWidget, _option: QStyleOptionViewItem, _index: QModelIndex
    ) -> QComboBox:
        """Create the combo box and open its list."""
        choice = QComboBox(parent)
        choice.setModel(self._images)
        choice.view().setMinimumWidth(choice.view().sizeHintForColumn(0) + MARGIN_PX)
        choice.activated.connect(lambda _: self._commit_and_close(choice))
        QTimer.singleShot(0, choice.showPopup)
        return choice

    def setEditorData(self, editor: QComboBox, index: QModelIndex) -> None:  # noqa: N802
        """Select the current image."""
        position = editor.findData(index.data(Qt.ItemDataRole.UserRole))
        editor.setCurrentIndex(max(position, 0))

    def setModelData(  # noqa: N802 (Qt's name)
        self, editor: QComboBox, model: QAbstractItemModel, index: QModelIndex
    ) -> None:
        """Store the selected image."""
        model.setData(index, editor.currentData(), Qt.ItemDataRole.UserRole)
        model.setData(index, editor.currentText(), Qt.ItemDataRole.DisplayRole)

    def _commit_and_close(self, choice: QComboBox) -> None:
        self.commitData.emit(choice)
        self.closeEditor.emit(choice)


class ChannelDialog(QDialog):
    """One row per case and one column per channel; OK is enabled once all channels are assigned.

    Parameters
    ----------
    channels : names of at least two channels
    candidates : images to choose from
    examples : files of known cases, one per channel; see
    ``channel_matching.assign_channels``
    """

    def __init__(
        self,
        parent: QWidget | None,
        channels: Sequence[str],
        candidates: Sequence[ImageCandidate],
        examples: Sequence[Sequence[Path]] = (),
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Assign channels")
        self._channels, self._examples = list(channels), examples
        self._candidates: dict[Path, ImageCandidate] = {}
        self._image_model = QStandardItemModel()
        self._image_model.appendRow(QStandardItem(NOT_CHOSEN))
        self.table = QTableWidget(0, 1 + len(channels))
        self.table.setHorizontalHeaderLabels(["Case", *channels])
        self.table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self._delegate = ImageChoiceDelegate(self._image_model, self.table)
        for column in range(1, 1 + len(channels)):
            self.table.setItemDelegateForColumn(column, self._delegate)
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT_PX)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.reason_label = make_hint_label("")
        self.add_button = make_button(
            "Add case", "Add a row", lambda: self._add_row(CaseDraft("", ()))
        )
        self.remove_button = make_button(
            "Remove",
            "Remove the selected cases; their files can still be assigned",
            self._remove_rows,
        )
        self.more_button = make_button(
            "More files…",
            "Add more files to choose from, e.g. from another folder",
            self._add_files,
        )
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        row = QHBoxLayout()
        for item in (self.add_button, self.remove_button, self.more_button):
            item.setAutoDefault(False)  # Enter finishes editing a name
            row.addWidget(item)
        row.addStretch(1)
        layout = QVBoxLayout(self)
        layout.addWidget(
            make_hint_label(
                "Each row becomes a case. Channels were assigned by file name; check and correct "
                "them."
            )
        )
        layout.addWidget(self.table, 1)
        layout.addLayout(row)
        layout.addWidget(self.reason_label)
        layout.addWidget(self.buttons)
        self._add_candidates(candidates)
        self.table.itemChanged.connect(self._update_state)
        self.table.cellClicked.connect(self._on_cell_clicked)
        n_rows = min(max(self.table.rowCount(), 3), MAX_ROWS_SHOWN)
        self.resize(min(260 + 230 * len(channels), 1200), 230 + ROW_HEIGHT_PX * n_rows)

    @property
    def scans(self) -> list[Scan]:
        """Cases for which all channels are assigned."""
        scans = []
        for name, images in self._read_rows():
            paths = tuple(path for path in images if path is not None)
            if len(paths) == len(images):
                scans.append(Scan(name, paths))
        return scans

    def assign_image(self, row: int, channel: int, path: Path | None) -> None:
        """Assign an image to a channel of a case."""
        item = self.table.item(row, 1 + channel)
        item.setData(Qt.ItemDataRole.UserRole, None if path is None else str(path))
        item.setText(NOT_CHOSEN if path is None else self._candidates[path].display_name)

    def get_image(self, row: int, channel: int) -> Path | None:
        """Return the image of a channel of a case."""
        path = self.table.item(row, 1 + channel).data(Qt.ItemDataRole.UserRole)
        return None if path is None else Path(path)

    def _add_candidates(self, candidates: Sequence[ImageCandidate]) -> None:
        """Add images to choose from, and create rows for new ones."""
        new_candidates = [piece for piece in candidates if piece.path not in self._candidates]
        for piece in new_candidates:
            self._candidates[piece.path] = piece
            item = QStandardItem(piece.display_name)
            item.setData(str(piece.path), Qt.ItemDataRole.UserRole)
            item.setToolTip(escape_rich_text(piece.path))
            self._image_model.appendRow(item)
        for row in assign_channels(new_candidates, self._channels, examples=self._examples):
            self._add_row(row)
        self._update_state()

    def _add_row(self, draft: CaseDraft) -> None:
        row = self.table.rowCount()
        self.table.blockSignals(True)
        self.table.insertRow(row)
        self.table.setItem(row, 0, QTableWidgetItem(draft.name or f"case {row + 1}"))
        for channel in range(len(self._channels)):
            self.table.setItem(row, 1 + channel, QTableWidgetItem())
            self.assign_image(row, channel, draft.images[channel] if draft.images else None)
        self.table.blockSignals(False)
        if not draft.images:
            self.table.scrollToBottom()
            self._update_state()

    def _on_cell_clicked(self, row: int, column: int) -> None:
        if column > 0:  # names are edited after a double click, as in other tables
            self.table.editItem(self.table.item(row, column))

    def _remove_rows(self) -> None:
        rows = sorted({index.row() for index in self.table.selectedIndexes()}, reverse=True)
        for row in rows:
            self.table.removeRow(row)
        self._update_state()

    def _add_files(self) -> None:
        chosen, _ = QFileDialog.getOpenFileNames(self, "Add files")
        if chosen:
            candidates = inspect_files([Path(path) for path in chosen], self)
            self._add_candidates(candidates or ())

    def _read_rows(self) -> list[tuple[str, tuple[Path | None, ...]]]:
        return [
            (
                self.table.item(row, 0).text().strip(),
                tuple(self.get_image(row, n) for n in range(len(self._channels))),
            )
            for row in range(self.table.rowCount())
        ]

    def _update_state(self, *_: object) -> None:
        problem = self._find_problem()
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(not problem)
        self.reason_label.setText(escape_control_characters(problem or self._summarize()))

    def _find_problem(self) -> str:
        """Describe the first problem; empty if all channels are assigned."""
        rows = self._read_rows()
        if not rows:
            return "There is no case yet. Add one and select an image for each channel."
        missing = [
            f"{name or 'A case'} has no image for {channel}"
            for name, images in rows
            for channel, path in zip(self._channels, images, strict=True)
            if path is None
        ]
        if missing:
            more = f", and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
            return f"{missing[0]}{more}. Select it, or remove the case."
        if not all(name for name, _ in rows):
            return "A case has no name. Type one into its first column."
        names = [name.casefold() for name, _ in rows]
        if duplicates := [name for name, _ in rows if names.count(name.casefold()) > 1]:
            return f"Two cases are named {duplicates[0]}. Rename one of them."
        owner: dict[Path, str] = {}
        for name, images in rows:
            for path in images:
                assert path is not None
                if path in owner:
                    users = name if owner[path] == name else f"{owner[path]} and {name}"
                    return (
                        f"{self._candidates[path].display_name} is assigned twice, to {users}. "
                        "Select another image for one of them."
                    )
                owner[path] = name
        return ""

    def _summarize(self) -> str:
        count = self.table.rowCount()
        n_unused = len(self._candidates) - count * len(self._channels)
        verb = "is" if n_unused == 1 else "are"
        unused_note = f" {format_count(n_unused, 'image')} {verb} not used." if n_unused else ""
        return f"{format_count(count, 'case')}.{unused_note}"


def inspect_files(paths: Sequence[Path], window: QWidget) -> list[ImageCandidate] | None:
    """Inspect files and folders in a thread; shows errors and then returns ``None``."""
    try:
        return run_with_dialog(
            "Reading files", lambda on_progress: candidates_from(paths, on_progress), window
        )
    except UserError as error:
        show_warning_box(window, "Files", str(error))
    except CancelledError:
        pass
    return None
