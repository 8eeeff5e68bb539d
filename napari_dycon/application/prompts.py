"""What only a person can decide: asked where a window listens, without knowing of windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class UserPrompt:
    """A question with what each answer does; not to answer at all does nothing.

    ``choices`` are pairs of a button's text and what it calls.
    """

    title: str
    text: str
    choices: tuple[tuple[str, Callable[[], object]], ...]
