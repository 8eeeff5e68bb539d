"""Generators that return a result after their events."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")


def get_result(generator: Generator[Any, None, T]) -> T:
    """Run a generator to its end, drop what it yields, and return its result."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            result: T = end.value
            return result
