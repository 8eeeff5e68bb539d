"""Progress of tasks in napari's activity dock, and in the panel while they last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.utils import cancelable_progress, progress
from qtpy.QtCore import QTimer

from napari_dycon.application.activities import Activities, Activity
from napari_dycon.application.task_runner import Progress
from napari_dycon.core.text import escape_rich_text
from napari_dycon.widgets.layers.napari_internals import slow_spinner

PROGRESS_STEPS = 1000  # steps of a progress bar
SHOW_AFTER_MS = 400  # after the start of a task
POLL_MS = 100  # interval between progress updates


class _CancelableBar(cancelable_progress):
    """A progress bar whose button calls a function at once.

    napari's own class waits for the next item of a loop that runs on the main thread.
    """

    def __init__(self, on_cancel: Callable[[], None], **settings: Any) -> None:
        super().__init__(**settings)
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        """Cancel the task, after napari has finished with the button."""
        super().cancel()
        QTimer.singleShot(0, self._on_cancel)


class ActivityBars:
    """Progress bars in napari's activity dock."""

    def __init__(self) -> None:
        self.shown: set[progress] = set()
        self.are_closed = False

    def add(self, activity: Activity) -> progress:
        """Add a bar; it has a button that cancels if that is possible."""
        title = escape_rich_text(activity.title)
        if activity.can_cancel:
            bar = _CancelableBar(activity.cancel, total=PROGRESS_STEPS, desc=title)
        else:
            bar = progress(total=PROGRESS_STEPS, desc=title)
        slow_spinner()
        self.shown.add(bar)
        return bar

    def remove(self, bar: progress) -> None:
        """Remove a bar; safe to call twice."""
        if bar in self.shown:
            self.shown.discard(bar)
            bar.close()

    def close(self) -> None:
        """Remove all bars; no more are to be added."""
        self.are_closed = True
        for bar in list(self.shown):
            bar.close()


class TaskDisplay:
    """Shows a task in the panel and the activity dock, from ``SHOW_AFTER_MS`` until its end.

    Tasks that end sooner are not shown: the window would flicker.

    Parameters
    ----------
    is_docked : whether the task is also shown in the activity dock
    """

    def __init__(
        self, activity: Activity, activities: Activities, bars: ActivityBars, *, is_docked: bool
    ) -> None:
        self._activity = activity
        self._activities = activities
        self._bars = bars
        self._is_docked = is_docked
        self._bar: progress | None = None
        self._is_shown = False
        self.has_ended = False
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._update)
        self._timer.start(SHOW_AFTER_MS)

    def _update(self) -> None:
        if self._bars.are_closed:  # and so is the panel
            return
        if self._is_shown:
            self._activities.changed.emit()
        else:
            self._is_shown = True
            self._activities.add(self._activity)
        if self._is_docked:
            self._update_bar()
        if not self.has_ended:
            self._timer.start(POLL_MS)

    def _update_bar(self) -> None:
        """Show the progress in the dock; a bar handles Qt events, and the task may end then."""
        if self._bar is None:
            self._bar = self._bars.add(self._activity)
        if not self.has_ended:
            text = escape_rich_text(self._activity.text)
            show_progress(self._bar, Progress(text, self._activity.fraction))
        if self.has_ended:
            self._bars.remove(self._bar)

    def end(self) -> None:
        """Show the task no longer."""
        self.has_ended = True
        self._timer.stop()
        self._activities.remove(self._activity)
        if self._bar is not None:
            self._bars.remove(self._bar)


def show_progress(bar: progress, shown: Progress) -> None:
    """Show a progress in a bar; an unchanged one costs nothing, since napari redraws the window."""
    if bar.desc.removesuffix(": ") != shown.text:
        bar.set_description(shown.text)
    target = int((shown.fraction or 0.0) * PROGRESS_STEPS)
    if target != bar.n:
        bar.update(target - bar.n)
