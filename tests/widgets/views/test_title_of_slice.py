"""The title of a view tells the slice that is drawn."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.gestures import Gestures

pytestmark = pytest.mark.gui


def check_titles(views: Any) -> None:
    for view in views.views:
        view._draw_annotations()
        shown = view.model.dims.current_step[view.plane.value]
        assert f"slice {shown + 1} of" in view.annotations.content.title


def test_a_view_that_follows_later_tells_its_old_slice_until_then(
    gestures: Gestures, qtbot: Any
) -> None:
    """The number of one slice over the picture of another misleads."""
    views = gestures.views
    _, coronal, sagittal = views.views
    steps = coronal.model.dims.current_step[1], sagittal.model.dims.current_step[2]
    spacing = gestures.session.case.image.spacing_mm
    voxel = (5, steps[0] - 3, steps[1] + 4)
    views.gestures.move_to(tuple(v * s for v, s in zip(voxel, spacing, strict=True)))
    assert coronal.model.dims.current_step[1] == steps[0]  # not yet
    check_titles(views)
    qtbot.waitUntil(lambda: sagittal.model.dims.current_step[2] == voxel[2], timeout=20_000)
    qtbot.waitUntil(lambda: coronal.model.dims.current_step[1] == voxel[1], timeout=20_000)
    check_titles(views)
