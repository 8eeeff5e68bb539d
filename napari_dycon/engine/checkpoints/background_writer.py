"""Background writer of checkpoints, one at a time, while training continues."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from napari_dycon.engine.checkpoints.training_state import Snapshot, write_snapshot
from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.events import CheckpointEvent, Event, WarningEvent


class CheckpointWriter:
    """Write snapshots of a run from a single thread.

    A ``checkpoint`` event is yielded only once both files are in place.

    Parameters
    ----------
    weights, state : the files
    """

    def __init__(self, weights: Path, state: Path) -> None:
        self._weights, self._state = weights, state
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, Future[None]] | None = None

    def start(self, snapshot: Snapshot, step: int) -> None:
        """Start writing; the result of the previous checkpoint must have been polled."""
        assert self._pending is None, "two checkpoints at once"
        future = self._pool.submit(write_snapshot, snapshot, self._weights, self._state)
        self._pending = step, future

    def poll_events(self, *, wait: bool = False) -> Iterator[Event]:
        """Yield the outcome of the last checkpoint once it is known; ``wait`` blocks until then."""
        if self._pending is None or not (wait or self._pending[1].done()):
            return
        step, future = self._pending
        error = future.exception()
        self._pending = None
        if error is None:
            yield CheckpointEvent(step=step)
        elif isinstance(error, ProjectError):  # a full disk may have space again the next time
            yield WarningEvent(message=f"No checkpoint at step {step}: {error}")
        elif is_out_of_memory(error):
            message = f"No checkpoint at step {step}: memory ran out."
            yield WarningEvent(message=message)
        else:
            raise error

    def close(self) -> None:
        """Wait until the current checkpoint is written."""
        self._pool.shutdown()
