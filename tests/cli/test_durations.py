"""Durations in options of commands."""

from __future__ import annotations

import pytest

from napari_dycon.cli.durations import parse_duration
from napari_dycon.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("90 sec", 90), ("10m", 600), ("5min", 300), ("5 min", 300),
        ("5 Minutes", 300),
        ("1 minute", 60), ("1.5h", 5400), ("1,5 h", 5400), ("2 hours", 7200), ("1h30m", 5400),
        ("1h 30min", 5400), (" 1 hour 5 s ", 3605),
    ],
)  # fmt: skip
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["5", "90", " 0.5 ", "1,5"])
def test_a_number_without_a_unit_is_refused(text: str) -> None:
    number = text.strip()
    with pytest.raises(UserError, match=f"Write the unit: {number}s, {number}m or {number}h"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    ["", "m", "soon", "-3s", "nan", "infs", "1d", "0m", "5m5m", "1h30", "5 m x", "1e9h", "99999h"],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a valid training time"):
        parse_duration(text)
