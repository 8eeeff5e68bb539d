"""Writes the events of a run to its folder, also through failures of the disk."""

from __future__ import annotations

import contextlib

from napari_dycon.project.runs.events import Event, StepEvent
from napari_dycon.project.runs.run import Run
from napari_dycon.project.runs.run_log import RunLog

MAX_PENDING_EVENTS = 10_000  # above this number, pending step events are dropped


class EventLog:
    """Writes events to ``events.jsonl`` and keeps those that cannot be written for the next call.

    A run must not end because the disk was full, or a network drive away, for a moment.

    Parameters
    ----------
    readable : log for people, written at the same time
    """

    def __init__(self, run: Run, readable: RunLog | None = None) -> None:
        self._run, self._readable = run, readable
        self._pending: list[Event] = []

    def write(self, event: Event) -> None:
        """Write the pending events and this one, as far as that is possible now."""
        self._pending.append(event)
        if self._readable is not None:
            self._readable.write(event)
        with contextlib.suppress(OSError):
            while self._pending:
                self._run.append_event(self._pending[0])
                del self._pending[0]
        if len(self._pending) > MAX_PENDING_EVENTS:
            self._pending = [one for one in self._pending if not isinstance(one, StepEvent)]
