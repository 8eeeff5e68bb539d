"""What the person asks of a running training, read from ``control.json`` between steps."""

from __future__ import annotations

import time

from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.metadata import RunControl
from napari_dycon.project.runs.run import Run


class RunControlReader:
    """Follows ``control.json``; looks at the disk at most a few times a second."""

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
            except ProjectError:  # being replaced just now (Windows): what was asked still holds
                return
            self._control = control

    def stop_requested(self) -> bool:
        """The person asked to end the run and keep what it learned."""
        self._refresh()
        return self._control.command == "stop"

    def pause_requested(self) -> bool:
        """The person asked to wait."""
        self._refresh()
        return self._control.command == "pause"

    def preview_case(self) -> str | None:
        """Case whose prediction the person is looking at."""
        self._refresh()
        return self._control.preview

    def wait(self) -> None:
        """Sleep until it is worth looking again."""
        time.sleep(self._interval_s)
