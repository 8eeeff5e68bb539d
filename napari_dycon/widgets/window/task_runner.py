"""Background tasks in superqt workers, with results on the main thread and progress in the dock.

These are the workers that napari uses, without napari's task list, which would keep every worker
and its results in memory until the window closes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from napari.utils import progress
from qtpy.QtCore import QThreadPool, QTimer
from superqt.utils import GeneratorWorker, WorkerBase, create_worker

from napari_dycon.application.predictions.status import describe_progress
from napari_dycon.application.task_runner import errors_as_events
from napari_dycon.core.text import escape_rich_text
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.project.runs.events import (
    Event,
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


class NapariTaskRunner:
    """Runs background tasks of a window; ``close`` stops following them."""

    def __init__(self) -> None:
        self._workers: set[WorkerBase[Any]] = set()
        self._bars: set[progress] = set()
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
    ) -> None:
        """Run a task like ``submit``, with a progress bar in the activity dock."""
        bar = progress(total=PROGRESS_STEPS, desc=title)
        slow_spinner()
        self._bars.add(bar)
        latest_progress: deque[tuple[int, int, str]] = deque(
            maxlen=1
        )  # written by the thread; only the latest is shown
        timer = QTimer()

        def poll() -> None:
            if self._is_closed:
                timer.stop()
            elif latest_progress:
                timer.stop()  # the bar handles Qt events while it is updated
                number, total, name = latest_progress.pop()
                bar.set_description(f"{title}: {name}")
                bar.update(int(PROGRESS_STEPS * number / max(total, 1)) - bar.n)
                if bar in self._bars:  # otherwise the task ended meanwhile
                    timer.start()

        def close_bar_then(then: Callable[[Any], None]) -> Callable[[Any], None]:
            def call(answer: Any) -> None:
                timer.stop()
                self._bars.discard(bar)
                bar.close()
                then(answer)

            return call

        timer.setInterval(POLL_MS)
        timer.timeout.connect(poll)
        timer.start()
        self.submit(
            lambda: task(lambda number, total, name: latest_progress.append((number, total, name))),
            close_bar_then(on_done),
            close_bar_then(on_error),
        )

    def stream(
        self, title: str, events: Iterator[Event], on_event: Callable[[Event], None]
    ) -> Callable[[], None]:
        """Relay events of an engine process, with a progress bar in the activity dock."""
        bar = progress(total=PROGRESS_STEPS, desc=title)
        slow_spinner()
        self._bars.add(bar)

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
                    update_progress(bar, title, first)
            finally:
                is_handling = False

        def close_bar() -> None:
            self._workers.discard(worker)
            self._bars.discard(bar)
            bar.close()

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


def _format_remaining(remaining_s: float | None) -> str:
    return "" if remaining_s is None else f", {format_duration(remaining_s)} left"


def format_duration(seconds: float) -> str:
    """Format a duration: "45 s", "12 min", "1 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
