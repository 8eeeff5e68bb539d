"""Helpers for lists."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def subsample(items: list[T], max_items: int) -> list[T]:
    """Keep every n-th item, with the smallest n that leaves at most ``max_items``."""
    stride = -(-len(items) // max_items)
    return items[:: max(stride, 1)]
