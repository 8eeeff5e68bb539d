"""The progress row: what runs in the background, with buttons that stop it; visible in every tab.

It has one height whether something runs or not, so that nothing moves under the mouse.
"""

from __future__ import annotations

from qtpy.QtWidgets import QGridLayout, QProgressBar, QSizePolicy, QWidget

from napari_dycon.application.activities import Activities, Activity
from napari_dycon.application.training.status import RunStatus
from napari_dycon.session import Session
from napari_dycon.widgets.window.helpers import make_button, report_errors, set_enabled
from napari_dycon.widgets.window.labels import ElidedLabel
from napari_dycon.widgets.window.message_bar import TALL_PANEL_PX

BAR_STEPS = 1000
BAR_HEIGHT_PX = 6
CANCEL_TIP = "Cancel; nothing is changed by what was not finished"


class ProgressRow(QWidget):
    """Text, bar and buttons of the newest task, or of the training if no task runs."""

    def __init__(self, session: Session, activities: Activities) -> None:
        super().__init__()
        self.session = session
        self.activities = activities
        self._activity: Activity | None = None
        self.label = ElidedLabel()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setRange(0, BAR_STEPS)
        self.bar.setFixedHeight(BAR_HEIGHT_PX)
        self.bar.setAccessibleName("Progress")
        self.pause_button = make_button(
            "Pause", "Pause or resume training", report_errors(session, self.toggle_pause)
        )
        self.stop_button = make_button("Cancel", CANCEL_TIP, report_errors(session, self._stop))
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(0, 1)
        for button, longest in ((self.pause_button, "Resume"), (self.stop_button, "Cancel")):
            button.setText(longest)
            button.setFixedWidth(button.sizeHint().width())
        self._is_tall = False
        self._arrange()
        for item in (self.label, self.bar, self.pause_button, self.stop_button):
            policy = item.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            item.setSizePolicy(policy)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        activities.changed.connect(self.refresh)
        session.run_changed.connect(self.refresh)
        session.project_changed.connect(self.refresh)
        self.refresh()

    def adapt_to_height(self, panel_height: int) -> None:
        """Give the text a line of its own where the panel is high enough."""
        is_tall = panel_height >= TALL_PANEL_PX
        if is_tall != self._is_tall:
            self._is_tall = is_tall
            self._arrange()

    def _arrange(self) -> None:
        n_columns, first_row = (3, 1) if self._is_tall else (1, 0)
        for item in (self.label, self.bar, self.pause_button, self.stop_button):
            self._grid.removeWidget(item)
        self._grid.addWidget(self.label, 0, 0, 1, n_columns)
        self._grid.addWidget(self.bar, 1, 0)
        for column, button in enumerate((self.pause_button, self.stop_button), start=1):
            self._grid.addWidget(button, first_row, column, 2 - first_row, 1)

    def refresh(self, *_: object) -> None:
        """Show what runs now."""
        status = self.session.status
        running = self.activities.running
        is_training = status.phase != "idle"
        self._activity = running[-1] if running else None
        for item in (self.label, self.bar, self.stop_button):
            item.setVisible(bool(running) or is_training)
        # A prediction alone needs the place for its text; buttons on the right stay where they are.
        policy = self.pause_button.sizePolicy()
        if policy.retainSizeWhenHidden() != (is_training or not running):
            policy.setRetainSizeWhenHidden(is_training or not running)
            self.pause_button.setSizePolicy(policy)
        self.pause_button.setVisible(is_training)
        if is_training:
            is_paused = status.phase in ("paused", "pausing")
            self.pause_button.setText("Resume" if is_paused else "Pause")
            set_enabled(self.pause_button, self._find_blocked_reason(status))
        if self._activity is not None:
            self._show_activity(self._activity, status)
        elif is_training:
            self._show_training(status)

    def toggle_pause(self) -> None:
        """Pause the training or resume it."""
        if self.session.status.phase in ("paused", "pausing"):
            self.session.resume()
        else:
            self.session.pause()

    def _stop(self) -> None:
        if self._activity is not None:
            self._activity.cancel()
        else:
            self.session.stop()

    def _show_activity(self, activity: Activity, status: RunStatus) -> None:
        text = activity.text
        n_others = len(self.activities.running) - 1
        if n_others:
            text += f" ({n_others} more)"
        if status.phase != "idle":
            text += f" · training {status.progress:.0%}"
        self.label.set_text(text)
        self._set_fraction(activity.fraction)
        self.stop_button.setText("Cancel")
        reason = "" if activity.can_cancel else "this cannot be canceled"
        if activity.is_canceled:
            reason = "it is being canceled"
        self.stop_button.setProperty("dycon_tip", CANCEL_TIP)
        set_enabled(self.stop_button, reason)

    def _show_training(self, status: RunStatus) -> None:
        self.label.set_text(status.summary)
        is_counted = status.phase in ("training", "pausing", "paused", "stopping")
        self._set_fraction(status.progress if is_counted or status.progress else None)
        self.stop_button.setText("Stop")
        self.stop_button.setProperty("dycon_tip", "Stop training and save the model")
        set_enabled(self.stop_button, self._find_blocked_reason(status))

    def _find_blocked_reason(self, status: RunStatus) -> str:
        if status.phase == "stopping":
            return "it is stopping"
        project = self.session.project
        return (project.read_only_reason or "") if project is not None else ""

    def _set_fraction(self, fraction: float | None) -> None:
        """Show a fraction; without one, the bar is empty.

        The animation of a bar without a range draws the window with its views 30 times a second,
        which takes half a processor core without a graphics card.
        """
        self.bar.setValue(round((fraction or 0.0) * BAR_STEPS))
