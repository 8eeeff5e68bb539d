"""The progress row: what runs in the background, with buttons that stop it; visible in every tab.

It has one height whether something runs or not, so that nothing moves under the mouse.
"""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QSizePolicy, QVBoxLayout, QWidget

from napari_dycon.application.activities import Activities, Activity
from napari_dycon.application.training.status import RunStatus
from napari_dycon.session import Session
from napari_dycon.widgets.window.helpers import make_button, report_errors, set_enabled
from napari_dycon.widgets.window.labels import ElidedLabel

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
        texts = QVBoxLayout()
        texts.setContentsMargins(0, 0, 0, 0)
        texts.setSpacing(2)
        texts.addWidget(self.label)
        texts.addWidget(self.bar)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(texts, 1)
        for button, longest in ((self.pause_button, "Resume"), (self.stop_button, "Cancel")):
            button.setText(longest)
            button.setFixedWidth(button.sizeHint().width())
            layout.addWidget(button)
        for item in (self.label, self.bar, self.pause_button, self.stop_button):
            policy = item.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            item.setSizePolicy(policy)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        activities.changed.connect(self.refresh)
        session.run_changed.connect(self.refresh)
        session.project_changed.connect(self.refresh)
        self.refresh()

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
