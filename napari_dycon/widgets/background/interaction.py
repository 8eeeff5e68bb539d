"""Whether the user is drawing, scrolling or zooming, so that other work can wait for a pause."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_S = 0.4  # without a change of what is drawn
MAX_WAIT_S = 5.0  # of work for a pause, in all
POLL_S = 0.02


class InteractionMonitor:
    """Knows when the user last changed what the views show."""

    def __init__(self) -> None:
        self._last = float("-inf")  # on the monotonic clock, in s

    def note(self, *_: object) -> None:
        """Note that the user draws, scrolls or zooms."""
        self._last = time.monotonic()

    @property
    def remaining_s(self) -> float:
        """Time until the user counts as pausing; 0 during a pause."""
        return max(self._last + PAUSE_S - time.monotonic(), 0.0)

    def make_pause_point(self) -> Callable[[], None]:
        """Return a function that waits in a thread while the user is active, up to a limit."""
        waited = 0.0

        def wait_for_pause() -> None:
            nonlocal waited
            while self.remaining_s > 0 and waited < MAX_WAIT_S:
                time.sleep(POLL_S)
                waited += POLL_S

        return wait_for_pause
