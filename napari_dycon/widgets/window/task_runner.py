"""Slow work in superqt's workers, answers on the main thread, progress in the activity dock.

They are the workers that napari hands out, without napari's list of tasks: that one keeps every
worker, and with it whatever was read, for as long as the window lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from napari.utils import progress
from qtpy.QtCore import QThreadPool, QTimer
from qtpy.QtWidgets import QApplication, QLabel
from superqt.utils import GeneratorWorker, WorkerBase, create_worker

from napari_dycon.application.task_runner import errors_as_events
from napari_dycon.project.importing.case_import import OnProgress

T = TypeVar("T")
Event = dict[str, Any]
PARTS = 1000  # steps of a progress bar
SPINNER_PERCENT = 8
LEAST_THREADS = 4
LOOK_MS = 100  # between looks at how far a work is


class NapariTaskRunner:
    """Background of a window; ``close`` ends what still follows."""

    def __init__(self) -> None:
        self._workers: set[WorkerBase[Any]] = set()
        self._bars: set[progress] = set()
        self._closed = False
        # Threads of this pool also serve Qt itself and napari.
        pool = QThreadPool.globalInstance()
        pool.setMaxThreadCount(max(pool.maxThreadCount(), LEAST_THREADS))

    def submit(
        self,
        task: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Run ``work`` in a thread; ``done`` or ``failed`` is called on the main thread."""

        # Errors travel as values: superqt's workers lose a RuntimeError.
        def guarded() -> tuple[T | None, Exception | None]:
            try:
                return task(), None
            except Exception as error:
                return None, error

        def returned(answer: tuple[T, Exception | None]) -> None:
            if self._closed:
                return
            result, error = answer
            if error is not None:
                on_error(error)
            else:
                on_done(result)

        worker = create_worker(guarded, _start_thread=False, _connect={"returned": returned})
        self._workers.add(worker)
        worker.finished.connect(lambda *_: self._workers.discard(worker))
        worker.start()

    def submit_with_progress(
        self,
        title: str,
        task: Callable[[OnProgress], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """As ``submit``; a bar in the activity dock shows how far the work is."""
        bar = progress(total=PARTS, desc=title)
        calm_spinner()
        self._bars.add(bar)
        told: deque[tuple[int, int, str]] = deque(maxlen=1)  # by the thread; the last counts
        timer = QTimer()

        def look() -> None:
            if self._closed:
                timer.stop()
            elif told:
                timer.stop()  # the bar handles Qt events while it is updated
                number, total, name = told.pop()
                bar.set_description(f"{title}: {name}")
                bar.update(int(PARTS * number / max(total, 1)) - bar.n)
                if bar in self._bars:  # else the work ended meanwhile
                    timer.start()

        def ended(then: Callable[[Any], None]) -> Callable[[Any], None]:
            def call(answer: Any) -> None:
                timer.stop()
                self._bars.discard(bar)
                bar.close()
                then(answer)

            return call

        timer.setInterval(LOOK_MS)
        timer.timeout.connect(look)
        timer.start()
        self.submit(
            lambda: task(lambda number, total, name: told.append((number, total, name))),
            ended(on_done),
            ended(on_error),
        )

    def stream(
        self, title: str, events: Iterator[Event], on_event: Callable[[Event], None]
    ) -> Callable[[], None]:
        """Relay events of an engine process; a bar in the activity dock shows how far it is."""
        bar = progress(total=PARTS, desc=title)
        calm_spinner()
        self._bars.add(bar)

        def relay() -> Iterator[Event]:
            # Qt scales pictures in threads of the same pool and waits for them on the main thread:
            # a thread that follows for hours must not count among the pool's own.
            pool = QThreadPool.globalInstance()
            pool.releaseThread()
            try:
                yield from errors_as_events(events)
            finally:
                pool.reserveThread()

        # napari's progress bar handles Qt events while it is updated, and so does many a slot: the
        # next event may arrive before this one is done with, and has to wait its turn.
        waiting: deque[Event] = deque()
        busy = False

        def yielded(event: Event) -> None:
            nonlocal busy
            waiting.append(event)
            if busy:
                return
            busy = True
            try:
                while waiting and not self._closed:
                    first = waiting.popleft()
                    on_event(first)
                    advance(bar, title, first)
            finally:
                busy = False

        def finished() -> None:
            self._workers.discard(worker)
            self._bars.discard(bar)
            bar.close()

        worker = create_worker(
            relay, _start_thread=False, _connect={"yielded": yielded, "finished": finished}
        )
        assert isinstance(worker, GeneratorWorker)
        self._workers.add(worker)
        worker.start()
        return worker.quit

    @property
    def idle(self) -> bool:
        """Whether no thread is at work."""
        return not self._workers

    def close(self) -> None:
        """Follow nothing any longer; the engine processes go on by themselves."""
        self._closed = True
        for worker in list(self._workers):
            worker.quit()
        for bar in list(self._bars):
            bar.close()


def calm_spinner() -> None:
    """Slow down the spinning sign that napari shows while something is in the activity dock.

    Each of its pictures redraws the whole window with the canvas; without a graphics card that took
    half a processor core from the training (measured).
    """
    for window in QApplication.topLevelWidgets():
        for label in window.findChildren(QLabel):
            if (movie := label.movie()) is not None:
                movie.setSpeed(SPINNER_PERCENT)


def advance(bar: progress, title: str, event: Event) -> None:
    """Move a bar to where an event says the work is."""
    kind = event.get("event")
    if kind == "step":
        share = float(event["progress"])
        left = event.get("remaining")
        rest = f", {remaining_text(left)} left" if left is not None else ""
        bar.set_description(f"{title}{rest}")
    elif kind == "predicting":
        share = event["done"] / max(event["total"], 1)
        left = event.get("remaining")
        rest = f", {remaining_text(left)} left" if left is not None else ""
        bar.set_description(f"{title}: {event['case']}{rest}")
    elif kind in ("preparing", "warps"):
        share = event["done"] / max(event["total"], 1)
        doing = "matching shapes" if kind == "warps" else "preparing scans"
        bar.set_description(f"{title}: {doing}")
        if share >= 1.0:
            share = 0.0
    else:
        return
    target = int(share * PARTS)
    if target != bar.n:
        bar.update(target - bar.n)


def remaining_text(seconds: float) -> str:
    """Seconds as people say them: "45 s", "12 min", "1 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
