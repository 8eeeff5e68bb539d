"""Uncertain regions of a case, above the value from which its uncertainty map is shown."""

from __future__ import annotations

import numpy as np

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.hotspots import MIN_THRESHOLD, Hotspot, find_hotspots
from napari_dycon.core.colormaps import choose_color_range
from napari_dycon.engine.inference.map_artifacts import (
    find_content_box,
    find_inner_box,
    find_period,
)
from napari_dycon.project.store import Project


def find_shown_threshold(case: ActiveCase, threshold: float) -> float:
    """Return the value from which the uncertainty of a case is shown.

    Parameters
    ----------
    threshold : that the user set; where much is uncertain, a higher one is used
    """
    return choose_color_range(threshold, case.display_thresholds.get("uncertainty", 0.0))[0]


def find_region_threshold(case: ActiveCase, threshold: float) -> float:
    """Return the least uncertainty of the voxels of uncertain regions."""
    return max(find_shown_threshold(case, threshold), MIN_THRESHOLD)


def find_case_hotspots(project: Project, case: ActiveCase, minimum: float) -> list[Hotspot]:
    """Find the uncertain regions of a case, without its margin, where maps have artifacts.

    Parameters
    ----------
    minimum : result of ``find_region_threshold``
    """
    if case.uncertainty is None or case.run is None:
        return []
    period = find_period(project, case.run, case.image.spacing_mm)
    inner = find_inner_box(find_content_box(case.image.array), period)
    searched = np.zeros_like(case.uncertainty)
    searched[inner] = case.uncertainty[inner]
    return find_hotspots(searched, case.image.spacing_mm, minimum=minimum)
