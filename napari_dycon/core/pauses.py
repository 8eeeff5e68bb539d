"""Long computations that pause while something more urgent runs."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def _continue_at_once() -> None:
    """Do not wait."""


_pause_point: contextvars.ContextVar[Callable[[], None]] = contextvars.ContextVar(
    "pause_point", default=_continue_at_once
)


def pause_if_needed() -> None:
    """Wait as long as the caller of ``run_with_pauses`` wants, between parts of a computation."""
    _pause_point.get()()


def run_with_pauses(task: Callable[[], T], pause_point: Callable[[], None]) -> T:
    """Run a task in this thread that calls ``pause_point`` between the parts of its work."""
    token = _pause_point.set(pause_point)
    try:
        return task()
    finally:
        _pause_point.reset(token)
