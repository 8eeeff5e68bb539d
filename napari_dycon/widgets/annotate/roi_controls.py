"""Buttons of the box that growing stays in, and the slices it reaches."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QSpinBox, QWidget

from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import button, guarded, set_enabled, signals_blocked


class BoxTools(QWidget):
    """First and last slice of the box; ``draw`` and ``remove`` are put elsewhere by the caller."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.draw = button(
            "Draw box",
            "Draw a rectangle in the slice in view: growing stays inside it, from the first to the "
            "last slice with strokes and a little further. Press it again to move the box or its "
            "corners, or to draw it in a further slice (Shift+G)",
            guarded(session, layers.box.toggle),
        )
        self.draw.setCheckable(True)
        self.first, self.last = QSpinBox(), QSpinBox()
        for box, name in ((self.first, "First"), (self.last, "Last")):
            box.setToolTip(f"{name} slice of the box, across the axis in view")
            box.setKeyboardTracking(False)
            box.valueChanged.connect(self._edited)
        self.remove = button(
            "Remove box",
            "Take the box away; growing then reaches as far around strokes as the preferences say",
            guarded(session, lambda: session.annotation.set_roi(None)),
        )
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for item in (QLabel("Slices"), self.first, QLabel("to"), self.last):
            row.addWidget(item)
        session.case_shown.connect(self._refresh)
        session.annotation.roi_changed.connect(self._refresh)
        layers.box.editing_changed.connect(self._refresh)
        layers.viewer.dims.events.order.connect(self._refresh)
        layers.viewer.dims.events.ndisplay.connect(self._refresh)
        self._refresh()

    def release(self) -> None:
        """Let go of the viewer."""
        self.layers.viewer.dims.events.order.disconnect(self._refresh)
        self.layers.viewer.dims.events.ndisplay.disconnect(self._refresh)

    def _edited(self, _: int) -> None:
        guarded(self.session, self.layers.box.set_slices)(self.first.value(), self.last.value() + 1)

    def _refresh(self, *_: object) -> None:
        view, box = self.session.case, self.session.annotation.roi
        flat = self.layers.viewer.dims.ndisplay == 2
        why_not = "" if view else "choose a case in the list first"
        if not flat and not why_not:
            why_not = "switch to the 2D view, a rectangle lies in a slice"
        set_enabled(self.draw, why_not)
        set_enabled(self.remove, "" if box is not None else "no box is drawn")
        self.draw.setText("Draw box" if box is None else "Change box")
        self.draw.setChecked(self.layers.box.editing)
        self.setVisible(box is not None)
        if box is not None and view is not None:
            axis = self.layers.axis
            first, last = box[axis].start, box[axis].stop - 1
            with signals_blocked(self.first), signals_blocked(self.last):
                self.first.setRange(0, last)
                self.last.setRange(first, view.label.shape[axis] - 1)
                self.first.setValue(first)
                self.last.setValue(last)
