"""Background tasks in superqt workers, with results on the main thread and progress in the dock.

These are the workers that napari uses, without napari's task list, which would keep every worker
and its results in memory until the window closes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from napari.utils import cancelable_progress, progress
from qtpy.QtCore import QThreadPool, QTimer
from superqt.utils import GeneratorWorker, WorkerBase, create_worker

from napari_dycon.application.activities import Activities, Activity
from napari_dycon.application.predictions.status import describe_progress
from napari_dycon.application.task_runner import Progress, errors_as_events
from napari_dycon.core.durations import format_remaining
from napari_dycon.core.text import escape_rich_text
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import CancelledError
from napari_dycon.project.runs.events import (
    Event,
    IdleEvent,
    PredictionProgressEvent,
    PreparingEvent,
    RegistrationEvent,
    StepEvent,
)
from napari_dycon.widgets.layers.napari_internals import slow_spinner

T = TypeVar("T")
PROGRESS_STEPS = 1000  # steps of a progress bar
MIN_THREADS = 4
POLL_MS = 100  # interval between progress updates


class _CancelableBar(cancelable_progress):
    """A progress bar whose button calls a function at once.

    napari's own class waits for the next item of a loop that runs on the main thread.
    """

    def __init__(self, on_cancel: Callable[[], None], **settings: Any) -> None:
        super().__init__(**settings)
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        """Cancel the task, after napari has finished with the button."""
        super().cancel()
        QTimer.singleShot(0, self._on_cancel)


class NapariTaskRunner:
    """Runs background tasks of a window; ``close`` stops following them."""

    def __init__(self) -> None:
        self._workers: set[WorkerBase[Any]] = set()
        self._bars: set[progress] = set()
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
    ) -> None:
        """Run a task like ``submit``, with its progress in the panel and in the activity dock."""
        activity = Activity(title, can_cancel=on_cancel is not None)
        bar = self._add_bar(title, activity.cancel if activity.can_cancel else None)
        timer = QTimer()
        has_ended = False

        def poll() -> None:
            if self._is_closed:
                timer.stop()
                return
            timer.stop()  # the bar handles Qt events while it is updated
            show_progress(bar, Progress(activity.text, activity.fraction))
            self.activities.changed.emit()
            if not has_ended:
                timer.start()

        def end() -> None:
            nonlocal has_ended
            has_ended = True
            timer.stop()
            self._remove_bar(bar)
            self.activities.remove(activity)

        def end_and_call(then: Callable[[Any], None]) -> Callable[[Any], None]:
            def call(answer: Any) -> None:
                if has_ended:  # canceled before; the result is dropped
                    return
                end()
                if isinstance(answer, CancelledError) and on_cancel is not None:
                    on_cancel()
                else:
                    then(answer)

            return call

        def on_cancel_requested() -> None:
            self.activities.changed.emit()
            if drop_result and on_cancel is not None and not has_ended:
                end()
                on_cancel()

        activity.on_cancel_requested = on_cancel_requested
        timer.setInterval(POLL_MS)
        timer.timeout.connect(poll)
        timer.start()
        self.activities.add(activity)
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
        bar = self._add_bar(title, activity.cancel if activity.can_cancel else None)
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
            self._remove_bar(bar)
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

    def _add_bar(self, title: str, on_cancel: Callable[[], None] | None) -> progress:
        """Add a progress bar to the activity dock, with a button that cancels if it can."""
        if on_cancel is None:
            bar = progress(total=PROGRESS_STEPS, desc=title)
        else:
            bar = _CancelableBar(on_cancel, total=PROGRESS_STEPS, desc=title)
        slow_spinner()
        self._bars.add(bar)
        return bar

    def _remove_bar(self, bar: progress) -> None:
        if bar in self._bars:
            self._bars.discard(bar)
            bar.close()

    def close(self) -> None:
        """Stop following; the engine processes continue."""
        self._is_closed = True
        for worker in list(self._workers):
            worker.quit()
        for bar in list(self._bars):
            bar.close()


def update_progress(bar: progress, title: str, event: Event) -> None:
    """Update a progress bar from an event."""
    if isinstance(event, StepEvent):
        fraction = event.progress
        bar.set_description(f"{title}{_format_remaining(event.remaining_s)}")
    elif isinstance(event, PredictionProgressEvent):
        fraction = event.progress
        bar.set_description(escape_rich_text(describe_progress(event)))
    elif isinstance(event, (PreparingEvent, RegistrationEvent)):
        fraction = event.done / max(event.total, 1)
        is_preparing = isinstance(event, PreparingEvent)
        bar.set_description(f"{title}: {'preparing' if is_preparing else 'registering'} scans")
        if fraction >= 1.0:
            fraction = 0.0
    else:
        return
    target = int(fraction * PROGRESS_STEPS)
    if target != bar.n:
        bar.update(target - bar.n)


def show_progress(bar: progress, shown: Progress) -> None:
    """Show a progress in a bar; an unchanged one costs nothing, since napari redraws the window."""
    if bar.desc.removesuffix(": ") != shown.text:
        bar.set_description(shown.text)
    target = int((shown.fraction or 0.0) * PROGRESS_STEPS)
    if target != bar.n:
        bar.update(target - bar.n)


def _format_remaining(remaining_s: float | None) -> str:
    return "" if remaining_s is None else f", {format_remaining(remaining_s)}"
