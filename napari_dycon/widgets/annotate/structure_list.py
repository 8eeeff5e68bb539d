"""List of a project's structures: names, colors, volumes and shortcut keys."""

from __future__ import annotations

import functools

from qtpy.QtCore import QModelIndex, QPoint, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter
from qtpy.QtWidgets import (
    QColorDialog,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.application.prompts import UserPrompt
from napari_dycon.core.text import escape_rich_text
from napari_dycon.errors import UserError
from napari_dycon.project.editing.structures import describe_structure_error
from napari_dycon.project.models import ClassInfo
from napari_dycon.session import Session
from napari_dycon.widgets.dialogs.name_dialog import NameDialog, ask_name
from napari_dycon.widgets.dialogs.prompt import show_prompt
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import (
    make_button,
    make_color_icon,
    report_errors,
    set_enabled,
    signals_blocked,
)

NUMBER_KEYS = 9  # structures that have a number key
VISIBLE_ROWS = 3  # of the list, before it scrolls
ICON_SIZE_PX = 14
COLOR_WIDTH_PX = ICON_SIZE_PX + 8  # of a row, with the space around the color
VOLUME_ROLE = Qt.ItemDataRole.UserRole
VOLUME_MARGIN_PX = 6


class VolumeDelegate(QStyledItemDelegate):
    """Draws the volume of a structure at the right end of its row, and the name before it."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw a row."""
        volume = index.data(VOLUME_ROLE) or ""
        width = option.fontMetrics.horizontalAdvance(volume)
        super().paint(painter, option, index)
        if not volume:
            return
        area = option.rect.adjusted(0, 0, -VOLUME_MARGIN_PX, 0)
        area.setLeft(area.right() - width)
        painter.save()
        painter.setFont(option.font)
        painter.setPen(option.palette.text().color())
        painter.drawText(area, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, volume)
        painter.restore()


class StructureRows(QListWidget):
    """Rows of the structures; letters and digits are left to the window.

    A double click on a name renames the structure, as F2 does, and one on its color changes that.
    """

    rename_requested = Signal()
    color_requested = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 (Qt's name)
        """Rename the selected structure with F2."""
        if event.key() == Qt.Key.Key_F2:
            self.rename_requested.emit()
        else:
            super().keyPressEvent(event)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:  # noqa: N802 (Qt's name)
        """Change the name or the color under the mouse."""
        item = self.itemAt(event.pos())
        if item is None or event.button() != Qt.MouseButton.LeftButton:
            return
        is_color = event.pos().x() < self.visualItemRect(item).left() + COLOR_WIDTH_PX
        (self.color_requested if is_color else self.rename_requested).emit()

    def keyboardSearch(self, search: str) -> None:  # noqa: N802 (Qt's name)
        """Ignore letters: they are shortcuts of the window."""


class StructureList(QWidget):
    """List of structures; brush and tools use the selected one."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.list = StructureRows()
        self.list.setItemDelegate(VolumeDelegate(self.list))
        self.list.setAccessibleName("Structures")
        self.list.setToolTip(
            "Structure to paint, and its volume in this label. Ctrl+number.\n"
            "A double click changes its name or color"
        )
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.list.customContextMenuRequested.connect(self._show_context_menu)
        self.list.currentRowChanged.connect(self._on_row_changed)
        self.list.rename_requested.connect(report_errors(session, self._rename))
        self.list.color_requested.connect(report_errors(session, self._choose_color))
        self.add_button = make_button("Add…", "Add a structure", report_errors(session, self._add))
        self.edit_button = QPushButton("Edit")
        self.edit_button.setProperty(
            "dycon_tip", "Rename, recolor or delete the selected structure"
        )
        menu = QMenu(self.edit_button)
        self.rename_action = menu.addAction("Rename…")
        self.color_action = menu.addAction("Change color…")
        menu.addSeparator()
        self.delete_action = menu.addAction("Delete…")
        for action, command in (
            (self.rename_action, self._rename),
            (self.color_action, self._choose_color),
            (self.delete_action, self._delete),
        ):
            action.triggered.connect(
                lambda _checked=False, command=command: report_errors(session, command)()
            )
        self.edit_button.setMenu(menu)
        buttons = QVBoxLayout()
        buttons.setSpacing(2)
        buttons.addWidget(self.add_button)
        buttons.addWidget(self.edit_button)
        buttons.addStretch(1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.list, 1)
        layout.addLayout(buttons)
        layers.brush_value_changed.connect(self._select_value)
        session.project_changed.connect(self._refresh)
        session.cases_changed.connect(self._refresh)
        session.active_agreement.changed.connect(self._show_volumes)
        self._refresh()

    @property
    def value(self) -> int:
        """Value of the selected structure."""
        project = self.session.project
        row = self.list.currentRow()
        return project.classes[row].value if project and 0 <= row < len(project.classes) else 1

    def choose_number(self, number: int) -> None:
        """Select the structure of a number key, 1 for the first in the list."""
        if 1 <= number <= self.list.count():
            self.list.setCurrentRow(number - 1)

    def _refresh(self, *_: object) -> None:
        project = self.session.project
        classes = project.classes if project else []
        if not self._shows(classes):
            with signals_blocked(self.list):
                self.list.clear()
                for number, info in enumerate(classes, start=1):
                    self.list.addItem(_make_item(number, info))
        self._set_height()
        self._show_volumes()
        self._select_value(self.layers.brush_value)
        for control in (self.add_button, self.edit_button):
            set_enabled(control, project.read_only_reason if project else "open a project first")

    def _shows(self, classes: list[ClassInfo]) -> bool:
        """Whether the rows are those of the structures; then they are not made again."""
        shown = [self.list.item(row).data(VOLUME_ROLE + 1) for row in range(self.list.count())]
        return shown == [info.model_dump() for info in classes]

    def _set_height(self) -> None:
        """Keep a fixed height, so that nothing below moves."""
        row_height = max(self.list.sizeHintForRow(0), self.fontMetrics().height() + 4)
        self.list.setFixedHeight(VISIBLE_ROWS * row_height + 2 * self.list.frameWidth() + 2)

    def _show_volumes(self) -> None:
        project, volumes = self.session.project, self.session.active_agreement.volumes_ml
        is_shown = self.session.case is not None
        for row, info in enumerate(project.classes if project else []):
            if (item := self.list.item(row)) is not None:
                text = _format_volume(volumes.get(info.value, 0.0)) if is_shown else ""
                item.setData(VOLUME_ROLE, text)

    def _select_value(self, value: int) -> None:
        """Select the row of a value."""
        project = self.session.project
        values = [c.value for c in project.classes] if project else []
        with signals_blocked(self.list):
            self.list.setCurrentRow(values.index(value) if value in values else 0)
        if (item := self.list.currentItem()) is not None:
            self.list.scrollToItem(item)

    def _on_row_changed(self, _: int) -> None:
        self.layers.brush_value = self.value
        if (layer := self.layers.find_layer("label")) is not None:
            layer.selected_label = self.value

    def _show_context_menu(self, position: QPoint) -> None:
        if self.edit_button.isEnabled() and self.list.itemAt(position) is not None:
            self.edit_button.menu().popup(self.list.viewport().mapToGlobal(position))

    # ---- Changes ---------------------------------------------------------------------------

    def _add(self) -> None:
        project = self.session.require_project()
        dialog = NameDialog(
            self,
            "Add structure",
            "Name",
            lambda name: describe_structure_error(name, project.classes),
        )
        if (name := ask_name(dialog)) is not None:
            project.add_class(name)
            self.session.cases_changed.emit()
            self.list.setCurrentRow(self.list.count() - 1)

    def _rename(self) -> None:
        if not self.edit_button.isEnabled():
            return
        project, info = self.session.require_project(), self._require_selected()
        others = [other for other in project.classes if other.value != info.value]
        dialog = NameDialog(
            self,
            "Rename structure",
            "New name",
            lambda name: describe_structure_error(name, others),
            text=info.name,
        )
        if (name := ask_name(dialog)) is not None:
            project.update_class(info.value, name=name)
            self.session.cases_changed.emit()

    def _choose_color(self) -> None:
        if not self.edit_button.isEnabled():
            return
        info = self._require_selected()
        color = QColorDialog.getColor(QColor(info.color), self, f"Color of {info.name}")
        if color.isValid():
            project = self.session.require_project()
            report_errors(self.session, project.update_class)(info.value, color=color.name())
            self.session.cases_changed.emit()

    def _delete(self) -> None:
        """Count the labels that contain the structure, then ask."""
        info, editor = self._require_selected(), self.session.project_editor

        def ask(count: int) -> None:
            labels = "1 label contains" if count == 1 else f"{count} labels contain"
            consequence = (
                f"{labels} it. Its voxels become unannotated: training ignores them until you "
                "annotate them again. Copies of these labels are kept in the project folder."
                if count
                else "No label contains it."
            )
            delete_it = functools.partial(editor.delete_structure, info.value)
            show_prompt(
                self,
                self.session,
                UserPrompt(
                    "Delete structure",
                    f'Delete the structure "{info.name}"?\n\n{consequence} This cannot be undone '
                    "with Ctrl+Z.",
                    (("Delete", delete_it),),
                ),
            )

        editor.count_labels(info.value, ask)

    def _require_selected(self) -> ClassInfo:
        project = self.session.require_project()
        row = int(self.list.currentRow())
        if not 0 <= row < len(project.classes):
            raise UserError("Select a structure first.")
        return project.classes[row]


def _make_item(number: int, info: ClassInfo) -> QListWidgetItem:
    icon = make_color_icon(info.color, ICON_SIZE_PX)
    item = QListWidgetItem(icon, f"{info.value}  {info.name}")
    key = f"\nCtrl+{number}" if number <= NUMBER_KEYS else ""
    item.setToolTip(f"{escape_rich_text(info.name)}{key}")
    item.setData(VOLUME_ROLE + 1, info.model_dump())
    return item


def _format_volume(volume_ml: float) -> str:
    if volume_ml == 0.0:
        return "0 ml"
    return f"{volume_ml:.2f} ml" if volume_ml < 9.995 else f"{volume_ml:.1f} ml"
