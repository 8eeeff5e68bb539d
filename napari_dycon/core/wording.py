"""Counts, volumes and names of methods in words."""

from __future__ import annotations

METHOD_NAMES = {
    "dycon": "DyCON",
    "secl-region": "SECL by region",
    "secl-anatomical": "SECL by anatomy",
    "mean-teacher": "mean teacher",
    "supervised": "supervised",
}


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun: "1 case", "8 cases"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_volume(volume_mm3: float) -> str:
    """Return a volume: "65 mm³", "0.31 ml", "3.1 ml"."""
    if volume_mm3 < 99.5:
        return f"{volume_mm3:.2g} mm³" if volume_mm3 < 10 else f"{volume_mm3:.0f} mm³"
    volume_ml = volume_mm3 / 1000
    return f"{volume_ml:.2f} ml" if volume_ml < 0.995 else f"{volume_ml:.1f} ml"
