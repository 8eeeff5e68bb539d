"""Tasks beside the training steps that report, pause and stop while they compute.

A task runs in a thread while the training waits, so that the run can report what it is doing. The
task calls ``TaskRunner.check`` between its parts, such as the windows of a scan: there it waits
while the run is paused and ends when it is stopped.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from napari_dycon.engine.network import SegmentationNetwork
from napari_dycon.engine.training.control import RunControlReader
from napari_dycon.project.runs.events import Event

T = TypeVar("T")

POLL_S = 0.1  # between looks at the requests of the user
HEARTBEAT_S = 1.0  # between events


class TaskInterruptedError(Exception):
    """The user stopped the run, or the time of the task is over."""


class TaskRunner:
    """Runs one task at a time in a thread and follows the requests of the user meanwhile.

    Parameters
    ----------
    pause : waits as long as the run is paused; yields events
    """

    def __init__(self, control: RunControlReader, pause: Callable[[], Iterator[Event]]) -> None:
        self._control, self._pause = control, pause
        self._may_continue, self._is_cancelled = threading.Event(), threading.Event()
        self._may_continue.set()

    def check(self) -> None:
        """Wait while the run is paused; called by a task.

        Raises
        ------
        TaskInterruptedError
            The task is to end.
        """
        if self.should_end():
            raise TaskInterruptedError

    def should_end(self) -> bool:
        """Wait while the run is paused and return whether the task is to end; called by a task."""
        self._may_continue.wait()
        return self._is_cancelled.is_set()

    def run(
        self,
        task: Callable[[], T],
        describe: Callable[[], Event],
        *,
        is_late: Callable[[], bool] = lambda: False,
        obeys_stop: bool = True,
    ) -> Generator[Event, None, T | None]:
        """Run a task; yields events and returns its result, ``None`` if it was interrupted.

        Parameters
        ----------
        describe : event that is yielded once a second
        is_late : whether the time of the task is over
        obeys_stop : whether a request to stop interrupts the task
        """
        self._is_cancelled.clear()
        described_at = time.monotonic()
        with ThreadPoolExecutor(1, "task") as pool:
            future = pool.submit(task)
            try:
                while not wait([future], timeout=POLL_S).done:
                    if (obeys_stop and self._control.stop_requested()) or is_late():
                        self._is_cancelled.set()
                    elif self._control.pause_requested():
                        yield from self._suspend()
                        yield describe()
                    elif time.monotonic() - described_at >= HEARTBEAT_S:
                        described_at = time.monotonic()
                        yield describe()
            finally:
                self._is_cancelled.set()  # for an iterator that is closed early
                _wait_silently(future)
        try:
            return future.result()
        except TaskInterruptedError:
            return None

    def iterate(
        self, events: Iterator[Event], describe: Callable[[], Event]
    ) -> Generator[Event, None, None]:
        """Run a generator step by step in a thread; yields its events and those of ``run``.

        The generator calls ``should_end`` and ends by itself.
        """
        end = object()
        while True:
            event = yield from self.run(lambda: next(events, end), describe)
            if event is end or event is None:
                return
            yield event  # type: ignore[misc]

    def _suspend(self) -> Iterator[Event]:
        self._may_continue.clear()
        try:
            yield from self._pause()
        finally:
            self._may_continue.set()

    @contextlib.contextmanager
    def checked_windows(self, *networks: SegmentationNetwork) -> Iterator[None]:
        """Call ``check`` before each window that one of the networks predicts in the block."""

        def call_check(*_: object) -> None:
            self.check()

        with contextlib.ExitStack() as stack:
            for network in networks:
                first_layer = network.backbone.input_block
                handle = first_layer.register_forward_pre_hook(call_check)
                stack.callback(handle.remove)
            yield


def _wait_silently(future: Future[T]) -> None:
    wait([future])
