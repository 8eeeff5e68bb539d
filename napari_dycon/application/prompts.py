"""Prompts for the user, independent of any window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class UserPrompt:
    """A prompt and its choices; dismissing it does nothing.

    ``choices`` are pairs of a button text and its action.
    """

    title: str
    text: str
    choices: tuple[tuple[str, Callable[[], object]], ...]
