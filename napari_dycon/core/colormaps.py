"""Colors of uncertainty, disagreement and differences, for the window and exported figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

RGBA = tuple[float, float, float, float]
# Evenly spaced from certain to uncertain. Transparent where the network is certain, so that the
# scan stays visible.
UNCERTAINTY_COLORMAP: tuple[RGBA, ...] = (
    (1, 1, 0, 0),
    (1, 0.85, 0, 0.55),
    (1, 0.35, 0, 0.85),
    (0.85, 0, 0.1, 1),
)


DEFAULT_THRESHOLD = 0.3  # of maps, below which they are transparent
# Tinting everything would hide the scan: at most this fraction of a map's voxels is tinted.
MAX_TINTED_FRACTION = 0.1


def find_tint_threshold(values: npt.NDArray[Any]) -> float:
    """Return the value of a map ``(D, H, W)`` above which the largest allowed part is tinted."""
    return float(np.quantile(values[::2, ::2, ::2], 1.0 - MAX_TINTED_FRACTION))


def choose_color_range(threshold: float, tint_threshold: float) -> tuple[float, float]:
    """Return the range of values that the colors of a map show.

    Parameters
    ----------
    threshold : value below which the map is transparent, if no more than allowed is tinted
    tint_threshold : result of ``find_tint_threshold``
    """
    low = max(threshold, min(tint_threshold, 0.999))
    return low, max(1.0, low + 0.01)


def parse_color(text: str) -> tuple[float, float, float]:
    """Convert a color like ``#56b4e9`` to red, green and blue from 0 to 1."""
    red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


# Colors that remain distinguishable from each other and from the default colors of structures with
# protanopia and deuteranopia; a test computes this.
DISAGREEMENT_COLOR = parse_color("#4982ff")
ADDED_COLOR = parse_color("#00dffd")  # cyan: only predicted
MISSED_COLOR = parse_color("#fffb5a")  # yellow: only labeled
OTHER_STRUCTURE_COLOR = parse_color("#4414bf")  # indigo
DISAGREEMENT_COLORMAP: tuple[RGBA, ...] = tuple(
    (*DISAGREEMENT_COLOR, opacity) for opacity in (0, 0.55, 0.85, 1)
)
DISAGREEMENT_OPACITY = DIFFERENCE_OPACITY = 0.9  # with which they lie over the scan


def apply_colormap(
    values: npt.NDArray[Any], stops: Sequence[RGBA] = UNCERTAINTY_COLORMAP
) -> npt.NDArray[np.uint8]:
    """Map values from 0 to 1 to colors, uint8 ``(..., 4)``, interpolated as in napari."""
    positions = np.linspace(0.0, 1.0, len(stops))
    channels = [np.interp(values, positions, [stop[i] for stop in stops]) for i in range(4)]
    return np.asarray(np.rint(np.stack(channels, axis=-1) * 255), np.uint8)
