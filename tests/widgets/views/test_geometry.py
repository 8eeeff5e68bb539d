"""What the three views really draw, compared with SimpleITK's own reorientation of the series."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from helpers.dicom_files import AXIAL, CORONAL, OBLIQUE, SAGITTAL, save_series

from napari_dycon.widgets.views.planes import Plane
from napari_dycon.widgets.views.view import View

pytestmark = pytest.mark.gui
SPACING = (4.0, 1.5, 1.0)  # between slices, rows and columns
OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


def read_oriented(folder: Path) -> sitk.Image:
    """Read a series with SimpleITK alone: axes left, posterior, superior."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.DICOMOrient(reader.Execute(), "LPS")


def get_expected_slice(
    image: sitk.Image, plane: Plane, voxel: tuple[int, int, int]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Rows from top to bottom and columns from left to right of the screen, and their spacing."""
    array = sitk.GetArrayFromImage(image)  # superior, posterior, left
    left, posterior, superior = image.GetSpacing()
    s, p, i = voxel
    if plane is Plane.AXIAL:
        return array[s], (posterior, left)
    if plane is Plane.CORONAL:
        return array[::-1, p], (superior, left)
    return array[::-1, :, i], (superior, posterior)


def find_drawn_area(picture: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a screenshot in which the scan is drawn; no voxel is black."""
    rows, columns = np.nonzero(picture.any(axis=1))[0], np.nonzero(picture.any(axis=0))[0]
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def resize(voxels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Enlarge without interpolation."""
    rows = ((np.arange(shape[0]) + 0.5) * voxels.shape[0] / shape[0]).astype(int)
    columns = ((np.arange(shape[1]) + 0.5) * voxels.shape[1] / shape[1]).astype(int)
    return voxels[rows][:, columns]


def check_view(view: View, image: sitk.Image, voxel: tuple[int, int, int]) -> None:
    """Compare what a view draws with the slice of SimpleITK: content, size and position."""
    picture = np.asarray(view.qt_viewer.screenshot(flash=False))[..., 0].astype(float)
    expected, spacing = get_expected_slice(image, view.plane, voxel)
    rows, columns = find_drawn_area(picture)
    drawn = picture[rows, columns]
    correlation = np.corrcoef(drawn.ravel(), resize(expected, drawn.shape).ravel())[0, 1]
    assert correlation > 0.95, (view.plane, correlation)
    zoom = view.geometry.zoom
    for size, count, distance in zip(drawn.shape, expected.shape, spacing, strict=True):
        assert size == pytest.approx(count * distance * zoom, abs=2.5)  # in millimeters
    # The crosshair is drawn on the voxel.
    vertical_axis, horizontal_axis = view.plane.displayed_axes
    mm = [v * s for v, s in zip(voxel, reversed(image.GetSpacing()), strict=True)]
    x, y = view.geometry.to_pixel(mm[vertical_axis], mm[horizontal_axis])
    row = voxel[vertical_axis]
    if view.plane is not Plane.AXIAL:
        row = expected.shape[0] - 1 - row
    assert x == pytest.approx(
        columns.start + (voxel[horizontal_axis] + 0.5) * spacing[1] * zoom, abs=2.5
    )
    assert y == pytest.approx(rows.start + (row + 0.5) * spacing[0] * zoom, abs=2.5)


def get_main_letter(direction: np.ndarray) -> str:
    """Return the letter of the largest component of a direction in LPS."""
    axis = int(np.argmax(np.abs(direction)))
    return ("LR", "PA", "SI")[axis][0 if direction[axis] > 0 else 1]


def check_letters(view: View, image: sitk.Image) -> None:
    """Compare the letters with the directions that SimpleITK gives for the axes."""
    left, posterior, superior = np.array(image.GetDirection()).reshape(3, 3).T
    right_of_screen = posterior if view.plane is Plane.SAGITTAL else left
    top_of_screen = -posterior if view.plane is Plane.AXIAL else superior
    letters = view.annotations.content.letters
    assert letters is not None
    assert letters.right[0] == get_main_letter(right_of_screen)
    assert letters.top[0] == get_main_letter(top_of_screen)
    assert letters.left[0] == OPPOSITE[letters.right[0]]
    assert letters.bottom[0] == OPPOSITE[letters.top[0]]


@pytest.mark.parametrize(
    "directions",
    [AXIAL, CORONAL, SAGITTAL, OBLIQUE],
    ids=["axial", "coronal", "sagittal", "oblique"],
)
def test_all_views_show_the_patient_in_radiological_orientation(
    window: Callable[[], Any], tmp_path: Path, qtbot: Any, directions: tuple[float, ...]
) -> None:
    voxels = np.random.default_rng(3).integers(400, 3000, (11, 9, 13)).astype(np.int16)
    save_series(tmp_path / "scans" / "mr", voxels, directions=directions, spacing=SPACING)
    image = read_oriented(tmp_path / "scans" / "mr")
    viewer, panel = window()
    session, views = panel.session, panel.canvas_area.views
    session.create_project(tmp_path / "p", tmp_path / "scans", classes=["lesion"])
    # A new project shows its first case.
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
    views.show_side_views(True)
    qtbot.wait(200)
    viewer.reset_view()
    panel.layers.intensity_window.set_range(0, 3000)
    voxel = tuple(n // 3 for n in session.case.image.shape)
    views.gestures.move_to(
        tuple(v * s for v, s in zip(voxel, session.case.image.spacing_mm, strict=True))
    )
    for view in views.views:
        axis = view.plane.value
        qtbot.waitUntil(
            partial(lambda v, a: v.model.dims.current_step[a] == voxel[a], view, axis),
            timeout=20_000,
        )
    qtbot.wait(200)
    assert [view.plane for view in views.views] == [Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL]
    for view in views.views:
        check_view(view, image, voxel)
        check_letters(view, image)
