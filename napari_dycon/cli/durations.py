"""Durations in options of commands, such as "90s", "5 min" or "1h30m"."""

from __future__ import annotations

import re

from napari_dycon.errors import UserError

MAX_SECONDS = 1e7
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_UNIT = r"s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?"
_PART = re.compile(rf"(\d+(?:[.,]\d+)?)\s*({_UNIT})(?![a-z])\s*", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")


def parse_duration(text: str) -> float:
    """Convert a duration such as "90s", "5 min", "1h30m" or "2 hours" to seconds.

    Raises
    ------
    UserError
        The text is not a duration, or a number without a unit.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        raise UserError(f"'{text}' has no unit. Write the unit: {text}s, {text}m or {text}h.")
    seconds, position, units = 0.0, 0, []
    while match := _PART.match(text, position):
        unit = match[2][0].lower()
        units.append(unit)
        seconds += float(match[1].replace(",", ".")) * SECONDS[unit]
        position = match.end()
    has_each_unit_once = len(units) == len(set(units))
    if position < len(text) or not has_each_unit_once or not 0 < seconds < MAX_SECONDS:
        raise UserError(
            f"'{text}' is not a valid training time. Write, for example, 90s, 10m or 1h30m."
        )
    return seconds
