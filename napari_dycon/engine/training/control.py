"""What the person asks of a running training, read from ``control.json`` between steps."""

from __future__ import annotations

import time

from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.run import Run


class Control:
    """Follows ``control.json``; looks at the disk at most a few times a second."""

    def __init__(self, run: Run, interval: float = 0.2) -> None:
        self._run = run
        self._interval = interval
        self._next = 0.0
        self._command = "run"
        self._preview: str | None = None

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._interval
            try:
                values = self._run.read_control()
            except ProjectError:  # being replaced just now (Windows): what was asked still holds
                return
            self._command = str(values.get("command", "run"))
            preview = values.get("preview")
            self._preview = preview if isinstance(preview, str) else None

    def stop(self) -> bool:
        """The person asked to end the run and keep what it learned."""
        self._look()
        return self._command == "stop"

    def pause(self) -> bool:
        """The person asked to wait."""
        self._look()
        return self._command == "pause"

    def preview(self) -> str | None:
        """Case whose prediction the person is looking at."""
        self._look()
        return self._preview

    def wait(self) -> None:
        """Sleep until it is worth looking again."""
        time.sleep(self._interval)
