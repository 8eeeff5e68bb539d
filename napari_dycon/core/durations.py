"""Durations as people read them."""

from __future__ import annotations

MAX_SECONDS_SHOWN = 90


def format_duration(seconds: float) -> str:
    """Format a duration: "45 s", "12 min", "1 h 5 min"."""
    if seconds < MAX_SECONDS_SHOWN:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_remaining(seconds: float | None) -> str:
    """Format a remaining time, as in "about 3 min left"; empty if it is unknown.

    Seconds are rounded, since an estimate that changes every second draws attention to itself.
    """
    if seconds is None:
        return ""
    if seconds < 5:
        return "a few seconds left"
    step = 5 if seconds < 30 else 10
    rounded = step * round(seconds / step) if seconds < MAX_SECONDS_SHOWN else seconds
    return f"about {format_duration(rounded)} left"
