"""How slow work leaves the caller: a small protocol and the plain implementation for scripts.

A window uses its own (``widgets/window/task_runner.py``), which runs the work in napari's workers
and delivers the answers on the main thread.
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
    """Runs work elsewhere and brings back what it returned."""

    def submit(
        self,
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run ``work``; then call exactly one of ``done`` and ``failed``."""
        ...

    def submit_with_progress(
        self,
        title: str,
        task: Callable[[ItemProgressCallback], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """As ``submit``, and show how far the work is by what it tells."""
        ...

    def stream(
        self, title: str, events: Iterator[Event], on_event: Callable[[Event], None]
    ) -> Callable[[], None]:
        """Call ``each`` for every event as it comes; return at once what ends it."""
        ...


class InlineTaskRunner:
    """For scripts: work runs at once in the caller, events are followed in a thread."""

    def submit(
        self,
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run ``work`` here and now; its errors reach the caller."""
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
        """As ``submit``; a script shows its progress itself."""
        self.submit(lambda: task(lambda _done, _total, _name: None), on_done, on_error)

    def stream(
        self, title: str, events: Iterator[Event], on_event: Callable[[Event], None]
    ) -> Callable[[], None]:
        """Follow in a daemon thread; ``each`` is called there."""
        ended = threading.Event()

        def relay() -> None:
            for event in errors_as_events(events):
                if ended.is_set():
                    return
                on_event(event)

        threading.Thread(target=relay, name=title, daemon=True).start()
        return ended.set


def errors_as_events(events: Iterator[Event]) -> Iterator[Event]:
    """Turn what an iterator of events raises into a last event, so that nobody waits for ever."""
    try:
        yield from events
    except OSError as error:  # no mistake of ours: the system says why
        yield FailedEvent(message=str(error))
    except Exception as error:
        yield FailedEvent(message=describe_error(error))
