"""Controls of the region of interest that limits growing."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QSpinBox, QWidget

from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.window.helpers import (
    make_button,
    report_errors,
    set_enabled,
    signals_blocked,
)


class RoiControls(QWidget):
    """First and last slice of the region.

    The caller places ``draw_button`` and ``remove_button``.
    """

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.draw_button = make_button(
            "Draw region",
            "Draw a rectangle in this slice to limit growing to a box around the scribbles. "
            "Press again to move or resize it, or to extend it to another slice (Shift+G)",
            report_errors(session, layers.roi.toggle_editing),
        )
        self.draw_button.setCheckable(True)
        self.first_slice, self.last_slice = QSpinBox(), QSpinBox()
        for spin_box, name in ((self.first_slice, "First"), (self.last_slice, "Last")):
            spin_box.setToolTip(f"{name} slice of the region along the current axis")
            spin_box.setAccessibleName(f"{name} slice of the region")
            spin_box.setMinimum(1)
            spin_box.setStyleSheet("min-width: 34px;")  # napari's spin boxes are wide
            spin_box.setKeyboardTracking(False)
            spin_box.valueChanged.connect(self._on_slices_edited)
        self.remove_button = make_button(
            "Clear region",
            "Remove the region; growing is then limited to the distance set in Preferences",
            report_errors(session, lambda: session.annotation.set_roi(None)),
        )
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(QLabel("Region: slices"))
        row.addWidget(self.first_slice, 1)
        row.addWidget(QLabel("to"))
        row.addWidget(self.last_slice, 1)
        session.case_shown.connect(self._refresh)
        session.annotation.roi_changed.connect(self._refresh)
        layers.roi.editing_changed.connect(self._refresh)
        layers.viewer.dims.events.order.connect(self._refresh)
        layers.viewer.dims.events.ndisplay.connect(self._refresh)
        self._refresh()

    def disconnect_events(self) -> None:
        """Disconnect from the viewer."""
        self.layers.viewer.dims.events.order.disconnect(self._refresh)
        self.layers.viewer.dims.events.ndisplay.disconnect(self._refresh)

    def _on_slices_edited(self, _: int) -> None:
        report_errors(self.session, self.layers.roi.set_slices)(
            self.first_slice.value() - 1, self.last_slice.value()
        )

    def _refresh(self, *_: object) -> None:
        case, roi = self.session.case, self.session.annotation.roi
        is_2d = self.layers.viewer.dims.ndisplay == 2
        blocked_reason = "" if case else "select a case in the list first"
        if not is_2d and not blocked_reason:
            blocked_reason = "switch to the 2D view first"
        set_enabled(self.draw_button, blocked_reason)
        set_enabled(self.remove_button, "" if roi is not None else "no region is drawn")
        self.draw_button.setText("Draw region" if roi is None else "Edit region")
        self.draw_button.setChecked(self.layers.roi.is_editing)
        # Shown also without a region, so that nothing below moves when one is drawn.
        self.setEnabled(roi is not None)
        if roi is None:
            for spin_box in (self.first_slice, self.last_slice):
                with signals_blocked(spin_box):
                    spin_box.setRange(1, 1)
        elif case is not None:
            axis = self.layers.main_axis
            first, last = roi[axis].start + 1, roi[axis].stop  # counted from 1
            with signals_blocked(self.first_slice), signals_blocked(self.last_slice):
                self.first_slice.setRange(1, last)
                self.last_slice.setRange(first, case.label.shape[axis])
                self.first_slice.setValue(first)
                self.last_slice.setValue(last)
