"""User requests to a running training, read from ``control.json`` between steps."""

from __future__ import annotations

import time
from collections.abc import Iterator

from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.events import Event, PausedEvent, ResumedEvent
from napari_dycon.project.runs.metadata import RunControl
from napari_dycon.project.runs.run import Run


class RunControlReader:
    """Reader of ``control.json`` that polls the disk at most a few times a second."""

    def __init__(self, run: Run, interval_s: float = 0.2) -> None:
        self._run = run
        self._interval_s = interval_s
        self._next_read = 0.0
        self._control = RunControl()

    def _refresh(self) -> None:
        now = time.monotonic()
        if now >= self._next_read:
            self._next_read = now + self._interval_s
            try:
                control = self._run.read_control()
            except ProjectError:  # being replaced (Windows): the previous requests still hold
                return
            self._control = control

    def stop_requested(self) -> bool:
        """Return whether the user has asked to end the run and keep its weights."""
        self._refresh()
        return self._control.command == "stop"

    def pause_requested(self) -> bool:
        """Return whether the user has asked to pause."""
        self._refresh()
        return self._control.command == "pause"

    def preview_case(self) -> str | None:
        """Return the case whose prediction is displayed, if any."""
        self._refresh()
        return self._control.preview

    def wait_while_paused(self) -> None:
        """Wait until the user resumes or stops the run."""
        while self.pause_requested():
            self.wait()

    def wait(self) -> None:
        """Sleep until the next poll is due."""
        time.sleep(self._interval_s)


def pause(control: RunControlReader, clock: TrainingClock, step: int) -> Iterator[Event]:
    """Wait until the user resumes or stops a run, outside of its time; yields events."""
    yield PausedEvent(step=step)
    with clock.paused():
        control.wait_while_paused()
    yield ResumedEvent(step=step)
