"""Background tasks: a protocol and an inline implementation for scripts.

A window uses ``widgets/background/task_runner.py``, which runs tasks in threads and delivers their
results on the main thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, Protocol, TypeVar

from napari_dycon.core.crash_report import describe_error
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.project.runs.events import Event, FailedEvent

T = TypeVar("T")


class Progress(NamedTuple):
    """Progress of a process: a text and a fraction from 0 to 1, ``None`` while it is unknown."""

    text: str
    fraction: float | None


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

    def submit_when_idle(
        self,
        key: str,
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run a low-priority task once the user pauses.

        Such tasks run one at a time. Neither function is called of a task that another one of the
        same key replaced, even if it was already running.
        """
        ...

    def submit_with_progress(
        self,
        title: str,
        task: Callable[[ItemProgressCallback], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
        *,
        on_cancel: Callable[[], None] | None = None,
        drop_result: bool = False,
        is_docked: bool = True,
    ) -> None:
        """Run a task like ``submit``, and show its progress unless it ends at once.

        Parameters
        ----------
        on_cancel : called instead of ``on_done`` and ``on_error`` after the user canceled the
            task; without it, the task cannot be canceled
        drop_result : the task changes nothing outside itself, so that a canceled one counts as
            ended at once and its result is dropped. Otherwise a canceled task ends at its next
            progress report, or completes if there is none
        is_docked : progress is also shown in napari's activity dock, where a new bar takes napari
            0.2 s
        """
        ...

    def stream(
        self,
        title: str,
        events: Iterator[Event],
        on_event: Callable[[Event], None],
        *,
        get_progress: Callable[[], Progress],
        on_cancel: Callable[[], None] | None = None,
        is_listed: bool = True,
    ) -> Callable[[], None]:
        """Call ``on_event`` for every event; returns a function that stops this.

        Parameters
        ----------
        get_progress : returns the progress to show at the start and after an event
        on_cancel : called when the user cancels; without it, there is nothing to cancel with
        is_listed : show it among the tasks of a window's panel
        """
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

    def submit_when_idle(
        self,
        key: str,  # noqa: ARG002 (of the protocol)
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run ``task`` immediately, like ``submit``."""
        self.submit(task, on_done, on_error)

    def submit_with_progress(
        self,
        title: str,  # noqa: ARG002 (of the protocol)
        task: Callable[[ItemProgressCallback], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
        *,
        on_cancel: Callable[[], None] | None = None,  # noqa: ARG002 (of the protocol)
        drop_result: bool = False,  # noqa: ARG002 (of the protocol)
        is_docked: bool = True,  # noqa: ARG002 (of the protocol)
    ) -> None:
        """Run a task like ``submit``, without showing its progress."""
        self.submit(lambda: task(lambda _done, _total, _name: None), on_done, on_error)

    def stream(
        self,
        title: str,
        events: Iterator[Event],
        on_event: Callable[[Event], None],
        *,
        get_progress: Callable[[], Progress],  # noqa: ARG002 (of the protocol)
        on_cancel: Callable[[], None] | None = None,  # noqa: ARG002 (of the protocol)
        is_listed: bool = True,  # noqa: ARG002 (of the protocol)
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


def errors_as_events(events: Iterator[Event]) -> Generator[Event, None, None]:
    """Convert an error of an event iterator into a final ``failed`` event."""
    try:
        yield from events
    except OSError as error:  # a system error describes itself
        yield FailedEvent(message=str(error))
    except Exception as error:  # noqa: BLE001 - any error of a worker is reported
        yield FailedEvent(message=describe_error(error))
