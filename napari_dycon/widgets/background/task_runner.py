"""Background tasks in threads, with results on the main thread and progress in napari's dock.

The threads are Python's, not those of Qt's global pool, as napari's own workers are: Qt converts
images in threads of that pool and waits for them on the main thread. With all of them occupied by
Python code that waits for the interpreter's lock, which the main thread holds, the window freezes
for ever.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from qtpy.QtCore import QObject, Qt, Signal

from napari_dycon.application.activities import Activities, Activity
from napari_dycon.application.task_runner import Progress, errors_as_events
from napari_dycon.core.text import escape_rich_text
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import CancelledError
from napari_dycon.project.runs.events import Event, IdleEvent
from napari_dycon.widgets.background.activity_display import (
    ActivityBars,
    TaskDisplay,
    show_progress,
)
from napari_dycon.widgets.background.idle_tasks import IdleTasks
from napari_dycon.widgets.background.interaction import InteractionMonitor

T = TypeVar("T")
MAX_THREADS = 4  # for tasks; streams of events have threads of their own


class MainThreadCaller(QObject):
    """Calls functions on the thread that it was made in, from any thread."""

    _requested = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._requested.connect(self._call, Qt.ConnectionType.QueuedConnection)

    def request(self, function: Callable[[], None]) -> None:
        """Have a function called when the thread returns to its event loop."""
        with contextlib.suppress(RuntimeError):  # Qt has ended with the program
            self._requested.emit(function)

    def _call(self, function: Callable[[], None]) -> None:
        function()


class NapariTaskRunner:
    """Runs background tasks of a window; ``close`` stops following them."""

    def __init__(self) -> None:
        self.interactions = InteractionMonitor()
        self._idle_tasks = IdleTasks(self.submit, self.interactions)
        self._executor = ThreadPoolExecutor(MAX_THREADS, "window")
        self._main_thread = MainThreadCaller()
        self._numbers = itertools.count()
        # Kept here, so that no thread of a task is the last to hold an object of the window.
        self._receivers: dict[int, tuple[Callable[[Any], None], Callable[[Exception], None]]] = {}
        self._streams = 0
        self.bars = ActivityBars()
        self.activities = Activities()  # tasks with progress, for the panel
        self._has_closed = threading.Event()

    def submit(
        self,
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run ``task`` in a thread; ``on_done`` or ``on_error`` is called on the main thread."""

        def call_task() -> None:
            try:
                result = task()
            except Exception as error:  # noqa: BLE001 - passed to on_error
                self._main_thread.request(partial(self._end, number, error, has_failed=True))
            else:
                self._main_thread.request(partial(self._end, number, result, has_failed=False))

        if self._has_closed.is_set():
            return
        number = next(self._numbers)
        self._receivers[number] = on_done, on_error
        self._executor.submit(call_task)

    def submit_when_idle(
        self,
        key: str,
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run a task like ``submit`` once the user pauses, unless a later one replaces it."""
        if not self._has_closed.is_set():
            self._idle_tasks.add(key, task, on_done, on_error)

    def _end(self, number: int, answer: Any, *, has_failed: bool) -> None:
        """Deliver the result or the error of a task."""
        on_done, on_error = self._receivers.pop(number)
        if self._has_closed.is_set():
            return
        if has_failed:
            on_error(answer)
        else:
            on_done(answer)

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
        """Run a task like ``submit``; its progress is shown once it has run for a moment."""
        activity = Activity(title, can_cancel=on_cancel is not None)
        display = TaskDisplay(activity, self.activities, self.bars, is_docked=is_docked)

        def end_and_call(then: Callable[[Any], None]) -> Callable[[Any], None]:
            def call(answer: Any) -> None:
                if display.has_ended:  # canceled before; the result is dropped
                    return
                display.end()
                if isinstance(answer, CancelledError) and on_cancel is not None:
                    on_cancel()
                else:
                    then(answer)

            return call

        def on_cancel_requested() -> None:
            self.activities.changed.emit()
            if drop_result and on_cancel is not None and not display.has_ended:
                display.end()
                on_cancel()

        activity.on_cancel_requested = on_cancel_requested
        self.submit(lambda: task(activity.report), end_and_call(on_done), end_and_call(on_error))

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
        """Relay events of an engine process, with its progress in panel and activity dock."""
        activity = Activity(title, can_cancel=on_cancel is not None)
        bar = self.bars.add(activity)
        activity.describe(*get_progress())  # what it does is known from the start

        def on_cancel_requested() -> None:
            if on_cancel is not None:
                on_cancel()
            self.activities.changed.emit()  # the process may take a moment to react

        activity.on_cancel_requested = on_cancel_requested
        if is_listed:
            self.activities.add(activity)

        has_quit = threading.Event()

        def relay() -> None:
            try:
                with contextlib.closing(errors_as_events(events)) as relayed:
                    for event in relayed:
                        if has_quit.is_set() or self._has_closed.is_set():
                            break
                        self._main_thread.request(partial(handle_event, event))
            finally:
                self._main_thread.request(end)

        # napari's progress bar and many slots process Qt events, so the next event may
        # arrive before this one has been handled and has to be queued.
        pending_events: deque[Event] = deque()
        is_handling = False

        def handle_event(event: Event) -> None:
            nonlocal is_handling
            pending_events.append(event)
            if is_handling:
                return
            is_handling = True
            try:
                while pending_events and not self._has_closed.is_set():
                    first = pending_events.popleft()
                    on_event(first)
                    if isinstance(first, IdleEvent):
                        continue
                    text, fraction = get_progress()
                    activity.describe(text, fraction)
                    show_progress(bar, Progress(escape_rich_text(text), fraction))
                    self.activities.changed.emit()
            finally:
                is_handling = False

        def end() -> None:
            self._streams -= 1
            self.bars.remove(bar)
            self.activities.remove(activity)

        self._streams += 1
        threading.Thread(target=relay, name=title, daemon=True).start()
        return has_quit.set

    @property
    def is_idle(self) -> bool:
        """Whether no task is waiting or running and no stream is followed."""
        return self._idle_tasks.is_empty and not (self._receivers or self._streams)

    def close(self) -> None:
        """Start no further task and stop following; the engine processes continue."""
        self._has_closed.set()
        self._idle_tasks.close()
        self._executor.shutdown(wait=False)  # after the tasks that were submitted
        self.bars.close()
