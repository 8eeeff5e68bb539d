"""Annotate: choose a structure, paint with napari's own tools, say what is finished."""

from __future__ import annotations

from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QColorDialog,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.session import Session
from napari_dycon.widgets.common import button, guarded, hint, set_enabled, signals_blocked
from napari_dycon.widgets.layers import CaseLayers


class AnnotateSection(QWidget):
    """Structures, brush, and the three ways to say "done"."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.classes = QListWidget()
        self.classes.setMaximumHeight(96)
        self.classes.setToolTip("The structure to paint; double-click to choose its colour")
        self.classes.currentRowChanged.connect(self._choose)
        self.classes.itemDoubleClicked.connect(self._recolor)
        self.add_class = button(
            "Add structure…", "Add another structure to segment", guarded(session, self._add_class)
        )
        self.rename = button(
            "Rename…", "Rename the chosen structure", guarded(session, self._rename)
        )
        self.paint = button("Paint", "Paint the chosen structure (napari's brush)", self._paint)
        self.erase = button(
            "Background", "Paint background: what is surely not the structure", self._erase
        )
        self.slice_done = button(
            "This slice is done",
            "Everything not painted in the shown slice is background; training learns from it",
            guarded(session, self._slice_done),
        )
        self.case_done = button(
            "Whole scan is done",
            "Everything not painted in this scan is background; the case counts as labelled",
            guarded(session, lambda: self._status("labelled")),
        )
        self.reviewed = button(
            "Mark as reviewed",
            "The label of this scan was checked and is final",
            guarded(session, lambda: self._status("reviewed")),
        )
        self.tint = QCheckBox("Show what nobody annotated yet")
        self.tint.setToolTip("Tint the voxels that training will ignore")
        self.tint.toggled.connect(layers.set_show_unannotated)
        self.saved = QLabel("")

        layout = QVBoxLayout(self)
        layout.addWidget(self.classes)
        for row in (
            (self.add_class, self.rename),
            (self.paint, self.erase),
            (self.slice_done, self.case_done),
            (self.reviewed,),
        ):
            line = QHBoxLayout()
            for item in row:
                line.addWidget(item)
            layout.addLayout(line)
        layout.addWidget(self.tint)
        layout.addWidget(
            hint(
                "Labels save themselves. Voxels that nobody painted or declared as background are "
                "ignored by the training, so a few finished slices are enough to start."
            )
        )
        layout.addWidget(self.saved)
        layout.addStretch(1)

        layers.brush_changed.connect(self._mark)
        session.project_changed.connect(self._refresh)
        session.cases_changed.connect(self._refresh)
        session.case_shown.connect(self._refresh)
        session.label_saved.connect(self._on_saved)
        self._refresh()

    def _refresh(self, *_: object) -> None:
        project, view = self.session.project, self.session.view
        with signals_blocked(self.classes):
            self.classes.clear()
            for info in project.classes if project else []:
                pixmap = QPixmap(14, 14)
                pixmap.fill(QColor(info.color))
                self.classes.addItem(QListWidgetItem(QIcon(pixmap), f"{info.value}  {info.name}"))
        self._mark(self.layers.brush)
        for item in (self.add_class, self.rename):
            set_enabled(item, "" if project else "open a project first")
        for item in (self.paint, self.erase, self.slice_done, self.case_done, self.reviewed):
            set_enabled(item, "" if view else "choose a case in the list first")

    def _value(self) -> int:
        project = self.session.project
        row = self.classes.currentRow()
        return project.classes[row].value if project and row >= 0 else 1

    def _mark(self, value: int) -> None:
        """Choose the row of a value."""
        project = self.session.project
        values = [c.value for c in project.classes] if project else []
        with signals_blocked(self.classes):
            self.classes.setCurrentRow(values.index(value) if value in values else 0)

    def _choose(self, _: int) -> None:
        self.layers.brush = self._value()
        if (layer := self.layers.layer("label")) is not None:
            layer.selected_label = self._value()

    def _paint(self) -> None:
        self._brush(self._value())

    def _erase(self) -> None:
        self._brush(0)

    def _brush(self, value: int) -> None:
        layer = self.layers.layer("label")
        if layer is not None:
            self.layers.viewer.layers.selection.active = layer
            layer.visible = True
            layer.selected_label = value
            layer.mode = "paint"

    def _slice_done(self) -> None:
        dims = self.layers.viewer.dims
        axis = next(iter(dims.not_displayed), 0)
        layer = self.layers.layer("label")
        if layer is None or dims.ndisplay != 2:
            self.session.message.emit("warning", "Switch to the 2D view to finish a slice.")
            return
        index = round(layer.world_to_data(dims.point)[axis])
        changed = self.session.fill_background(index, axis)
        self.session.save_label()
        self.session.message.emit("info", f"Slice {index}: {changed} voxels are background now.")

    def _status(self, status: str) -> None:
        if self.session.view is not None:
            self.session.set_case_status(self.session.view.id, status)

    def _add_class(self) -> None:
        name, given = QInputDialog.getText(self, "Add structure", "Name of the structure:")
        if given and name.strip() and self.session.project is not None:
            self.session.project.add_class(name)
            self.session.cases_changed.emit()

    def _rename(self) -> None:
        project = self.session.project
        if project is None:
            return
        old = next(c.name for c in project.classes if c.value == self._value())
        name, given = QInputDialog.getText(self, "Rename structure", "New name:", text=old)
        if given and name.strip():
            project.change_class(self._value(), name=name.strip())
            self.session.cases_changed.emit()

    def _recolor(self, _: QListWidgetItem) -> None:
        color = QColorDialog.getColor(parent=self)
        if color.isValid() and self.session.project is not None:
            guarded(self.session, self.session.project.change_class)(
                self._value(), color=color.name()
            )
            self.session.cases_changed.emit()

    def _on_saved(self, case_id: str) -> None:
        from qtpy.QtCore import QTime

        self.saved.setText(f"Saved {case_id} at {QTime.currentTime().toString('HH:mm:ss')}")
