"""Background tasks: a protocol and an inline implementation for scripts.

A window uses ``widgets/window/task_runner.py``, which runs tasks in workers and delivers results on
the main thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from napari_dycon.core.crash_report import describe_error
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.project.runs.events import Event, FailedEvent

T = TypeVar("T")


class TaskRunner(Protocol):
    """Runs tasks and delivers their results."""

    def submit(
        self,
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run ``task``; then call exactly one of ``on_done`` and ``on_error``."""
        ...

    def submit_with_progress(
        self,
        title: str,
        task: Callable[[ItemProgressCallback], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run a task like ``submit``, and show its progress."""
        ...

    def stream(
        self, title: str, events: Iterator[Event], on_event: Callable[[Event], None]
    ) -> Callable[[], None]:
        """Call ``on_event`` for every event; returns a function that stops this."""
        ...


class InlineTaskRunner:
    """Task runner for scripts: tasks run in the caller, events are followed in a thread."""

    def submit(
        self,
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run ``task`` immediately; errors are also raised."""
        try:
            result = task()
        except Exception as error:
            on_error(error)
            raise
        on_done(result)

    def submit_with_progress(
        self,
        title: str,  # noqa: ARG002 (of the protocol)
        task: Callable[[ItemProgressCallback], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run a task like ``submit``, without showing its progress."""
        self.submit(lambda: task(lambda _done, _total, _name: None), on_done, on_error)

    def stream(
        self, title: str, events: Iterator[Event], on_event: Callable[[Event], None]
    ) -> Callable[[], None]:
        """Follow events in a daemon thread, which calls ``on_event``."""
        ended = threading.Event()

        def relay() -> None:
            for event in errors_as_events(events):
                if ended.is_set():
                    return
                on_event(event)

        threading.Thread(target=relay, name=title, daemon=True).start()
        return ended.set


def errors_as_events(events: Iterator[Event]) -> Iterator[Event]:
    """Convert an error of an event iterator into a final ``failed`` event."""
    try:
        yield from events
    except OSError as error:  # a system error describes itself
        yield FailedEvent(message=str(error))
    except Exception as error:  # noqa: BLE001 - any error of a worker is reported
        yield FailedEvent(message=describe_error(error))
