"""How slow work leaves the caller: a small protocol and the plain implementation for scripts.

A window uses its own (``widgets/window/task_runner.py``), which runs the work in napari's workers
and delivers the answers on the main thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from napari_dycon.core.crash_report import describe_error
from napari_dycon.project.importing.case_import import OnProgress

T = TypeVar("T")
Event = dict[str, Any]


class Background(Protocol):
    """Runs work elsewhere and brings back what it returned."""

    def run(
        self,
        work: Callable[[], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Run ``work``; then call exactly one of ``done`` and ``failed``."""
        ...

    def watch(
        self,
        title: str,
        work: Callable[[OnProgress], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """As ``run``, and show how far the work is by what it tells."""
        ...

    def follow(
        self, title: str, events: Iterator[Event], each: Callable[[Event], None]
    ) -> Callable[[], None]:
        """Call ``each`` for every event as it comes; return at once what ends it."""
        ...


class PlainBackground:
    """For scripts: work runs at once in the caller, events are followed in a thread."""

    def run(
        self,
        work: Callable[[], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Run ``work`` here and now; its errors reach the caller."""
        try:
            result = work()
        except Exception as error:
            failed(error)
            raise
        done(result)

    def watch(
        self,
        title: str,  # noqa: ARG002 (of the protocol)
        work: Callable[[OnProgress], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """As ``run``; a script shows its progress itself."""
        self.run(lambda: work(lambda _done, _total, _name: None), done, failed)

    def follow(
        self, title: str, events: Iterator[Event], each: Callable[[Event], None]
    ) -> Callable[[], None]:
        """Follow in a daemon thread; ``each`` is called there."""
        ended = threading.Event()

        def relay() -> None:
            for event in with_failures(events):
                if ended.is_set():
                    return
                each(event)

        threading.Thread(target=relay, name=title, daemon=True).start()
        return ended.set


def with_failures(events: Iterator[Event]) -> Iterator[Event]:
    """Turn what an iterator of events raises into a last event, so that nobody waits for ever."""
    try:
        yield from events
    except OSError as error:  # no mistake of ours: the system says why
        yield {"event": "failed", "message": str(error)}
    except Exception as error:
        yield {"event": "failed", "message": describe_error(error)}
