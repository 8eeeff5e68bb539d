"""What an engine says while it works: one JSON object a line.

Every event has ``event`` (its kind), those of a run also ``time`` (seconds since the epoch). Those
from ``predicting`` on are told by predictions.

===========  =====================================================================
kind         further keys
===========  =====================================================================
started      run, method, device, device_reason, precision, labeled, unlabeled,
             validation (numbers of cases), steps, time_limit, pid, from_step (0, or where
             the checkpoint lies from which a run goes on: later steps are made again)
preparing    done, total (scans); at least one a second
warps        done, total (labeled scans deformed into the shapes of unlabeled ones)
step         step, steps, progress (0 to 1), loss, parts {name: value}, beta,
             learning_rate, elapsed, remaining (seconds)
validation   step, progress, dice {class value: mean Dice}, mean (None without any); missed
             {case: why} where cases could not be scored
preview      case, step, mask, uncertainty (paths of files)
checkpoint   step
warning      message
paused       step
resumed      step; from_step where a run went back to its last checkpoint: later steps are
             made again
finished     step, elapsed, reason ("steps" or "time limit"), dice (mean or null)
stopped      step, elapsed: asked to stop; the weights are saved
failed       message, advice
predicting   case, done, total (scans with templates), remaining (seconds; null at first): a
             scan, or an unlabeled one as a template, is predicted next. It may come before
             ``predicted`` of the scan before, whose files are still being written
templates    case, done, total: an unlabeled scan was predicted as a template
predicted    case, done, total, volume_ml {class value: ml}, mean_uncertainty: the files of the
             scan are in place
skipped      case, reason: a scan that could not be predicted
===========  =====================================================================

``parse_event`` reads one such line of a file, which may come from anywhere.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from napari_dycon.project.runs.event_lines import Event, parse_event

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run

__all__ = ["FINAL_EVENTS", "Event", "parse_event"]

FINAL_EVENTS = frozenset({"finished", "stopped", "failed"})
MAX_PENDING_EVENTS = 10_000  # events; then the steps among them are given up


class EventLog:
    """Writes events to ``events.jsonl``; what finds no room there waits for the next time.

    A night's training must not end because the disk was full, or the network away, for a moment.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pending: list[Event] = []

    def write(self, event: Event) -> None:
        """Write what waits and this event, as far as that is possible now."""
        self._pending.append(event)
        with contextlib.suppress(OSError):
            while self._pending:
                self._run.append_event(self._pending[0])
                del self._pending[0]
        if len(self._pending) > MAX_PENDING_EVENTS:
            self._pending = [one for one in self._pending if one.get("event") != "step"]
