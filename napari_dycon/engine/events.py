"""What an engine says while it works: one JSON object a line.

Every event has ``event`` (its kind) and ``time`` (seconds since the epoch).

===========  =====================================================================
kind         further keys
===========  =====================================================================
started      run, method, device, device_reason, precision, labelled, unlabelled,
             validation (numbers of cases), steps, time_limit, pid
preparing    done, total (scans)
warps        done, total (labelled scans deformed into the shapes of unlabelled ones)
step         step, steps, progress (0 to 1), loss, parts {name: value}, beta,
             learning_rate, elapsed, remaining (seconds)
validation   step, progress, dice {class value: mean Dice}, mean
preview      case, step, mask, uncertainty (paths of files)
checkpoint   step
warning      message
paused       step
resumed      step
finished     step, elapsed, reason ("steps" or "time limit"), dice (mean or null)
stopped      step, elapsed: asked to stop; the weights are saved
failed       message, advice
===========  =====================================================================

``parse_line`` reads one such line of a file, which may come from anywhere.
"""

from __future__ import annotations

from napari_dycon.project.event_lines import Event, parse_line

__all__ = ["LAST_EVENTS", "Event", "parse_line"]

LAST_EVENTS = frozenset({"finished", "stopped", "failed"})
