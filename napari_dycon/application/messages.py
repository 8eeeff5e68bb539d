"""Limits the number of messages shown to the user."""

from __future__ import annotations

from collections.abc import Sequence

from napari_dycon.application.state import AppState

MAX_MESSAGES = 3  # shown one by one


def report_messages(state: AppState, level: str, texts: Sequence[str], remainder: str) -> None:
    """Emit the first messages and the number of the others, described by ``remainder``.

    All of them can be read again in the list of recent messages.
    """
    for text in texts[:MAX_MESSAGES]:
        state.message.emit(level, text)
    if len(texts) > MAX_MESSAGES:
        state.message.emit(level, f"{len(texts) - MAX_MESSAGES} {remainder}.")


def report_notes(state: AppState, notes: Sequence[str]) -> None:
    """Emit the first notes and the number of the others."""
    report_messages(state, "info", notes, "more messages like these")
