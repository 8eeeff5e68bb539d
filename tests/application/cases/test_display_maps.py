"""Displayed uncertainty maps have no checkerboard and no heat along the faces of a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from napari_dycon.application.cases.display_maps import (
    find_content,
    get_cell_mm,
    make_display_map,
)
from napari_dycon.application.cases.loading import load_case
from napari_dycon.project.store import Project

HALF = (2.0, 2.0, 2.0)  # cells of a network at half resolution, on its own grid
SHAPE = (40, 48, 44)


@pytest.fixture
def scan() -> Any:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def test_the_checkerboard_of_half_resolution_disappears(scan: Any) -> None:
    d, h, w = np.indices(SHAPE)
    board = ((d + h + w) % 2).astype(np.float32)  # period of one cell along each axis
    dots = ((d % 2 == 0) & (h % 2 == 0) & (w % 2 == 0)).astype(np.float32)
    coarse = np.kron(board[:20, :24, :22], np.ones((2, 2, 2), np.float32))  # a coarser network
    for pattern, cells in ((board, HALF), (dots, HALF), (coarse, (4.0, 4.0, 4.0))):
        shown = make_display_map(pattern, None, scan, cells)[12:-12, 12:-12, 12:-12].astype(float)
        assert pattern.std() > 0.3
        assert shown.std() < 0.04 * pattern.std() + 1e-3
        assert shown.mean() == pytest.approx(pattern.mean(), abs=0.02)


def test_uncertain_regions_stay(scan: Any) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[15:21, 20:26, 18:24] = 0.9
    shown = make_display_map(values, None, scan, HALF)
    assert shown.dtype == np.float16
    assert shown[18, 23, 21] == pytest.approx(0.9, abs=0.01)
    assert shown[18, 23, 18] > 0.4  # its border stays where it is
    assert shown[18, 23, 15] < 0.02
    assert (values[15:21, 20:26, 18:24] == np.float32(0.9)).all()  # the map itself is unchanged


def test_no_heat_along_the_faces(scan: Any) -> None:
    values = np.zeros(SHAPE, np.float32)
    for axis in range(3):
        for index in (0, 1, -1, -2):
            values[tuple(index if a == axis else slice(None) for a in range(3))] = 0.8
    shown = make_display_map(values, None, scan, HALF)
    assert values[0].mean() == pytest.approx(0.8)
    assert float(shown[0].max()) == float(shown[:, -1].max()) == float(shown[..., 1].max()) == 0
    assert float(shown.max()) == 0  # nor does the Gaussian carry it inwards


def test_no_heat_along_padding(scan: Any) -> None:
    """A scan that was padded is uncertain where its content begins."""
    scan[:6] = scan[:, :, -7:] = -1000
    assert find_content(scan) == (slice(6, 40), slice(0, 48), slice(0, 37))
    values = np.zeros(SHAPE, np.float32)
    values[5:8] = values[:, :, 35:38] = 0.8
    shown = make_display_map(values, None, scan, HALF)
    assert float(shown[:8].max()) == 0
    assert float(shown[:, :, 35:].max()) == 0


def test_structures_that_leave_the_scan_keep_their_uncertainty(scan: Any) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[:, :3] = 0.8
    prediction = np.zeros(SHAPE, np.uint8)
    prediction[10:20, :8, 10:20] = 1
    shown = make_display_map(values, prediction, scan, HALF)
    assert float(shown[15, 0, 15]) > 0.5
    assert float(shown[35, 0, 38]) < 0.05


def test_few_thick_slices_are_not_cleared() -> None:
    """Of 6 slices, the outer two at both ends would be most of the scan."""
    scan = np.random.default_rng(0).normal(size=(6, 60, 60))
    values = np.zeros(scan.shape, np.float32)
    values[0, 20:40, 20:40] = 0.9
    shown = make_display_map(values, None, scan, (2.0, 2.0, 2.0))
    assert float(shown[0, 30, 30]) > 0.4


def test_a_constant_scan_is_all_content() -> None:
    assert find_content(np.zeros((4, 5, 6))) == (slice(0, 4), slice(0, 5), slice(0, 6))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (2.0, 1.0, 1.0)),
        ({"preprocessing": {"spacing": [1.0, 1.0, 0.5]}}, (2.0, 2.0, 1.0)),
        (
            {"preprocessing": {"spacing": None}, "network": {"half_resolution": False}},
            (1.0, 0.5, 0.5),
        ),
        # Files of a project are not trusted.
        ({"preprocessing": {"spacing": [1e30, 1.0, 1.0]}}, (8.0, 2.0, 2.0)),
        ({"preprocessing": {"spacing": [0, -1, float("nan")]}}, (2.0, 1.0, 1.0)),
        ({"preprocessing": {"spacing": "x" * 3}}, (2.0, 1.0, 1.0)),
        ({"preprocessing": 7, "network": []}, (2.0, 1.0, 1.0)),
    ],
)
def test_cells_from_the_settings_of_a_run(config: Any, expected: tuple[float, ...]) -> None:
    assert get_cell_mm(config, (1.0, 0.5, 0.5)) == pytest.approx(expected)


def test_loading_keeps_the_maps_on_disk_and_the_ranking(project: Project) -> None:
    case_id = project.cases[0].id
    shape = project.read_image(case_id).shape
    rng = np.random.default_rng(0)
    values = ndimage.gaussian_filter(rng.random(shape), 2).astype(np.float32)
    values[:2] = 0.9
    run = project.runs.create("dycon", {})
    project.predictions.write(run.id, case_id, np.zeros(shape, np.uint8), values, values / 2)
    case = load_case(project, case_id).case
    assert set(case.display_maps) == {"uncertainty", "disagreement"}
    assert float(case.display_maps["uncertainty"][0].max()) < 0.05
    assert case.uncertainty is not None
    assert float(case.uncertainty[0].max()) > 0.85  # scores and regions use what is stored
    stored = project.predictions.read(run.id, case_id, "uncertainty")
    assert np.allclose(stored, values, atol=0.01)
