"""Background tasks in superqt workers, with results on the main thread and progress in the dock.

These are the workers that napari uses, without napari's task list, which would keep every worker
and its results in memory until the window closes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from qtpy.QtCore import QThreadPool
from superqt.utils import GeneratorWorker, WorkerBase, create_worker

from napari_dycon.application.activities import Activities, Activity
from napari_dycon.application.task_runner import Progress, errors_as_events
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import CancelledError
from napari_dycon.project.runs.events import Event, IdleEvent
from napari_dycon.widgets.window.activity_display import (
    PROGRESS_STEPS,
    ActivityBars,
    TaskDisplay,
    show_progress,
    update_progress,
)

T = TypeVar("T")
MIN_THREADS = 4


class NapariTaskRunner:
    """Runs background tasks of a window; ``close`` stops following them."""

    def __init__(self) -> None:
        self._workers: set[WorkerBase[Any]] = set()
        self.bars = ActivityBars()
        self.activities = Activities()  # tasks with progress, for the panel
        self._is_closed = False
        # Threads of this pool also serve Qt itself and napari.
        pool = QThreadPool.globalInstance()
        pool.setMaxThreadCount(max(pool.maxThreadCount(), MIN_THREADS))

    def submit(
        self,
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run ``task`` in a thread; ``on_done`` or ``on_error`` is called on the main thread."""

        # Errors travel as values: superqt's workers lose a RuntimeError.
        def call_task() -> tuple[T | None, Exception | None]:
            try:
                return task(), None
            except Exception as error:  # noqa: BLE001 - passed to on_error
                return None, error

        def on_returned(answer: tuple[T, Exception | None]) -> None:
            if self._is_closed:
                return
            result, error = answer
            if error is not None:
                on_error(error)
            else:
                on_done(result)

        worker = create_worker(call_task, _start_thread=False, _connect={"returned": on_returned})
        self._workers.add(worker)
        worker.finished.connect(lambda *_: self._workers.discard(worker))
        worker.start()

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
        get_progress: Callable[[], Progress] | None = None,
        on_cancel: Callable[[], None] | None = None,
        is_listed: bool = True,
    ) -> Callable[[], None]:
        """Relay events of an engine process, with its progress in panel and activity dock."""
        activity = Activity(title, can_cancel=on_cancel is not None)
        bar = self.bars.add(activity)
        if get_progress is not None:  # what it does is known from the start
            activity.describe(*get_progress())

        def on_cancel_requested() -> None:
            if on_cancel is not None:
                on_cancel()
            self.activities.changed.emit()  # the process may take a moment to react

        activity.on_cancel_requested = on_cancel_requested
        if is_listed:
            self.activities.add(activity)

        def relay() -> Iterator[Event]:
            # Qt scales images in threads of the same pool and waits for them on the main
            # thread, so a thread that runs for hours must not occupy the pool.
            pool = QThreadPool.globalInstance()
            pool.releaseThread()
            try:
                yield from errors_as_events(events)
            finally:
                pool.reserveThread()

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
                while pending_events and not self._is_closed:
                    first = pending_events.popleft()
                    on_event(first)
                    if isinstance(first, IdleEvent):
                        continue
                    if get_progress is None:
                        update_progress(bar, title, first)
                    else:
                        show_progress(bar, get_progress())
                    activity.describe(bar.desc.removesuffix(": "), bar.n / PROGRESS_STEPS or None)
                    self.activities.changed.emit()
            finally:
                is_handling = False

        def close_bar() -> None:
            self._workers.discard(worker)
            self.bars.remove(bar)
            self.activities.remove(activity)

        worker = create_worker(
            relay, _start_thread=False, _connect={"yielded": handle_event, "finished": close_bar}
        )
        assert isinstance(worker, GeneratorWorker)
        self._workers.add(worker)
        worker.start()
        return worker.quit

    @property
    def is_idle(self) -> bool:
        """Whether no thread is running."""
        return not self._workers

    def close(self) -> None:
        """Stop following; the engine processes continue."""
        self._is_closed = True
        for worker in list(self._workers):
            worker.quit()
        self.bars.close()
