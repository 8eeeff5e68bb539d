"""Counts, durations and volumes in words."""

from __future__ import annotations

ROUGH_ABOVE_S = 90.0  # remaining times below are given in seconds


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun: "1 case", "8 cases"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_duration(seconds: float) -> str:
    """Return a duration that has passed: "45 s", "1 min 40 s", "1 h 5 min"."""
    total = max(round(seconds), 0)
    if total < 60:
        return f"{total} s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(total / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def format_time_left(seconds: float) -> str:
    """Return an estimate of the remaining time: "about 20 s left", "about 6 min left"."""
    if seconds < ROUGH_ABOVE_S:
        step = 5 if seconds > 15 else 1
        return f"about {max(step * round(seconds / step), 1)} s left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min left"
    hours, minutes = divmod(5 * round(minutes / 5), 60)
    return f"about {hours} h {minutes} min left" if minutes else f"about {hours} h left"


def format_volume(volume_mm3: float) -> str:
    """Return a volume: "65 mm³", "0.31 ml", "3.1 ml"."""
    if volume_mm3 < 99.5:
        return f"{volume_mm3:.2g} mm³" if volume_mm3 < 10 else f"{volume_mm3:.0f} mm³"
    volume_ml = volume_mm3 / 1000
    return f"{volume_ml:.2f} ml" if volume_ml < 0.995 else f"{volume_ml:.1f} ml"
