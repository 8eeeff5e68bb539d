"""Contrast of colors, as the Web Content Accessibility Guidelines (WCAG 2.2) define it."""

from __future__ import annotations

from qtpy.QtGui import QColor

MIN_GRAPHICS_CONTRAST = 3.0  # WCAG 2.2, criterion 1.4.11
STEPS = 50


def contrast_ratio(one: str, other: str) -> float:
    """Return the contrast of two colors, from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def adapt_to_background(
    color: str, background: str, min_contrast: float = MIN_GRAPHICS_CONTRAST
) -> str:
    """Return the color, as much darker or lighter as a background requires.

    Parameters
    ----------
    color, background : as ``#rrggbb``
    min_contrast : of the returned color to the background, 7 at most
    """
    end = max(("#000000", "#ffffff"), key=lambda extreme: contrast_ratio(extreme, background))
    for step in range(STEPS):
        mixed = _mix(color, end, step / STEPS)
        if contrast_ratio(mixed, background) >= min_contrast:
            return mixed
    return end


def _mix(one: str, other: str, share: float) -> str:
    """Return a color between two, ``share`` of the way to the other."""
    pairs = zip(QColor(one).getRgb()[:3], QColor(other).getRgb()[:3], strict=True)
    parts = [round((1 - share) * a + share * b) for a, b in pairs]
    return "#" + "".join(f"{part:02x}" for part in parts)


def _luminance(color: str) -> float:
    parts = QColor(color)
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (parts.redF(), parts.greenF(), parts.blueF())
    ]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
