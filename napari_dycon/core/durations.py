"""Durations as people read them."""

from __future__ import annotations

MAX_SECONDS_SHOWN, MAX_HALVES_SHOWN = 90, 285


def format_duration(seconds: float) -> str:
    """Format a duration: "45 s", "12 min", "1 h 5 min"."""
    if seconds < MAX_SECONDS_SHOWN:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def format_elapsed(seconds: float) -> str:
    """Format a time that has passed: "45 s", "1 min 40 s", "1 h 5 min"."""
    total = max(round(seconds), 0)
    if total < 60:
        return f"{total} s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(total / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def format_remaining(seconds: float | None) -> str:
    """Format a remaining time, as in "about 3 min left"; empty if it is unknown.

    Seconds are rounded, since an estimate that changes every second draws attention to itself. Up
    to some minutes, halves of a minute are shown: whole ones would seem to stand still.
    """
    if seconds is None:
        return ""
    if seconds < 5:
        return "a few seconds left"
    if MAX_SECONDS_SHOWN <= seconds < MAX_HALVES_SHOWN:
        minutes, half = divmod(round(seconds / 30), 2)
        return f"about {minutes}{'½' if half else ''} min left"
    step = 5 if seconds < 30 else 10
    rounded = step * round(seconds / step) if seconds < MAX_SECONDS_SHOWN else seconds
    return f"about {format_duration(rounded)} left"
