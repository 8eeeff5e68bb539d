"""Messages to the user where there may be very many of them."""

from __future__ import annotations

from collections.abc import Sequence

from napari_dycon.application.state import AppState

MAX_MESSAGES = 3  # shown one by one


def report_messages(state: AppState, level: str, texts: Sequence[str], remainder: str) -> None:
    """Emit the first messages, and how many more there are (``remainder`` names them)."""
    for text in texts[:MAX_MESSAGES]:
        state.message.emit(level, text)
    if len(texts) > MAX_MESSAGES:
        state.message.emit(level, f"{len(texts) - MAX_MESSAGES} {remainder}.")


def report_notes(state: AppState, notes: Sequence[str]) -> None:
    """Emit the first of many notes, and how many there are."""
    report_messages(state, "info", notes, "more messages like these")
