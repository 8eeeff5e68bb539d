"""List of a project's structures: names, colors and shortcut keys."""

from __future__ import annotations

from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QColorDialog,
    QHBoxLayout,
    QInputDialog,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import (
    make_button,
    report_errors,
    set_enabled,
    signals_blocked,
)

NUMBER_KEYS = 9  # structures that have a number key


class StructureList(QWidget):
    """List of structures; brush and tools use the selected one."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.list = QListWidget()
        self.list.setMaximumHeight(84)
        self.list.setToolTip(
            "Structure to paint. Ctrl+number selects it; double-click to change its color"
        )
        self.list.currentRowChanged.connect(self._on_row_changed)
        self.list.itemDoubleClicked.connect(self._choose_color)
        self.add_button = make_button(
            "Add structure…", "Add a structure", report_errors(session, self._add)
        )
        self.rename_button = make_button(
            "Rename…", "Rename the selected structure", report_errors(session, self._rename)
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        line = QHBoxLayout()
        for item in (self.add_button, self.rename_button):
            line.addWidget(item)
        layout.addLayout(line)
        layers.brush_value_changed.connect(self._select_value)
        session.project_changed.connect(self._refresh)
        session.cases_changed.connect(self._refresh)
        self._refresh()

    @property
    def value(self) -> int:
        """Value of the selected structure."""
        project = self.session.project
        row = self.list.currentRow()
        return project.classes[row].value if project and row >= 0 else 1

    def choose_number(self, number: int) -> None:
        """Select the structure of a number key, 1 for the first in the list."""
        if 1 <= number <= self.list.count():
            self.list.setCurrentRow(number - 1)

    def _refresh(self, *_: object) -> None:
        project = self.session.project
        with signals_blocked(self.list):
            self.list.clear()
            for number, info in enumerate(project.classes if project else [], start=1):
                pixmap = QPixmap(14, 14)
                pixmap.fill(QColor(info.color))
                item = QListWidgetItem(QIcon(pixmap), f"{info.value}  {info.name}")
                if number <= NUMBER_KEYS:
                    item.setToolTip(f"Ctrl+{number}")
                self.list.addItem(item)
        self._select_value(self.layers.brush_value)
        for control in (self.add_button, self.rename_button):
            set_enabled(control, project.read_only_reason if project else "open a project first")

    def _select_value(self, value: int) -> None:
        """Select the row of a value."""
        project = self.session.project
        values = [c.value for c in project.classes] if project else []
        with signals_blocked(self.list):
            self.list.setCurrentRow(values.index(value) if value in values else 0)

    def _on_row_changed(self, _: int) -> None:
        self.layers.brush_value = self.value
        if (layer := self.layers.find_layer("label")) is not None:
            layer.selected_label = self.value

    def _add(self) -> None:
        name, accepted = QInputDialog.getText(self, "Add structure", "Name:")
        if accepted and name.strip() and self.session.project is not None:
            self.session.project.add_class(name)
            self.session.cases_changed.emit()

    def _rename(self) -> None:
        project = self.session.project
        if project is None:
            return
        old_name = next(c.name for c in project.classes if c.value == self.value)
        name, accepted = QInputDialog.getText(self, "Rename structure", "New name:", text=old_name)
        if accepted and name.strip():
            project.update_class(self.value, name=name.strip())
            self.session.cases_changed.emit()

    def _choose_color(self, _: QListWidgetItem) -> None:
        color = QColorDialog.getColor(parent=self)
        if color.isValid() and self.session.project is not None:
            report_errors(self.session, self.session.project.update_class)(
                self.value, color=color.name()
            )
            self.session.cases_changed.emit()
