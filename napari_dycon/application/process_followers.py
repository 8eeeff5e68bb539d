"""Followers of the engine processes of the open project."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import Progress, TaskRunner
from napari_dycon.project.runs.events import Event


class ProcessFollowers:
    """Follows engine processes until they end or the project is closed."""

    def __init__(self, state: AppState, task_runner: TaskRunner) -> None:
        self._task_runner = task_runner
        # For each process: function that stops following, and whether its events have ended.
        self._followers: list[tuple[Callable[[], None], threading.Event]] = []
        state.project_closed.connect(self.stop_all)

    def follow(
        self,
        title: str,
        events: Iterator[Event],
        on_event: Callable[[Event], None],
        *,
        get_progress: Callable[[], Progress],
        on_cancel: Callable[[], None] | None = None,
        is_listed: bool = True,
    ) -> None:
        """Follow an engine process until it ends or the project is closed.

        The other parameters are those of ``TaskRunner.stream``.
        """
        ended = threading.Event()

        def relay_events() -> Iterator[Event]:
            try:
                yield from events
            finally:
                ended.set()

        self._followers = [
            (stop_following, has_ended)
            for stop_following, has_ended in self._followers
            if not has_ended.is_set()
        ]
        stop_following = self._task_runner.stream(
            title,
            relay_events(),
            on_event,
            get_progress=get_progress,
            on_cancel=on_cancel,
            is_listed=is_listed,
        )
        self._followers.append((stop_following, ended))

    def stop_all(self) -> None:
        """Stop following all processes; they continue to run."""
        for stop_following, _ in self._followers:
            stop_following()
        self._followers.clear()
