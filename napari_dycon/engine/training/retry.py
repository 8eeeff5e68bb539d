"""Final writes of a run, retried while the disk is full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.events import Event, WarningEvent

RETRY_TIMEOUT_S, RETRY_PAUSE_S = 600.0, 2.0  # total, and between attempts


def retry_on_full_disk(write: Callable[[], None]) -> Iterator[Event]:
    """Write the result of a run, waiting for disk space, since it is only in memory.

    Raises
    ------
    ProjectError
        Writing failed for ``RETRY_TIMEOUT_S`` seconds.
    """
    end = time.monotonic() + RETRY_TIMEOUT_S
    has_warned = False
    while True:
        try:
            write()
            return
        except ProjectError as error:
            if time.monotonic() >= end:
                raise
            if not has_warned:
                has_warned = True
                yield WarningEvent(
                    message=f"The result of the run cannot be saved: {error} Retrying for "
                    f"{RETRY_TIMEOUT_S / 60:.0f} minutes."
                )
        time.sleep(RETRY_PAUSE_S)
