"""Checkerboards and borders are removed from maps, structures are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.application.cases.loading import load_case
from napari_dycon.engine.inference.map_artifacts import (
    clean_map,
    find_content_box,
    find_inner_box,
    find_period,
    make_period_kernel,
)
from napari_dycon.project.store import Project

SHAPE = (40, 44, 48)
PERIOD = (2.0, 2.0, 2.0)


def make_checkerboard(period: int = 2) -> np.ndarray[Any, Any]:
    d, h, w = np.indices(SHAPE)
    half = period // 2
    return (((d // half + h // half + w // half) % 2) * 0.6 + 0.2).astype(np.float32)


def make_image() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.mark.parametrize("period", [2, 4])
def test_a_checkerboard_becomes_its_mean(period: int) -> None:
    found = clean_map(make_checkerboard(period), make_image(), (float(period),) * 3)
    assert found[4:-4, 4:-4, 4:-4] == pytest.approx(0.5, abs=1e-3)


def test_a_thick_region_keeps_its_value_and_place() -> None:
    values = np.zeros(SHAPE, np.float32)
    values[10:18, 10:18, 10:18] = 0.8
    found = clean_map(values, make_image(), PERIOD)
    assert found[11:17, 11:17, 11:17] == pytest.approx(0.8)
    assert found[:8].max() == 0.0
    assert np.argwhere(found > 0.4).min(axis=0).tolist() == [10, 10, 10]


def test_without_a_pattern_nothing_is_smoothed() -> None:
    values = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    inner = (slice(2, -2),) * 3
    assert np.array_equal(clean_map(values, make_image(), (1.0, 1.0, 1.0))[inner], values[inner])


@pytest.mark.parametrize("length", [0.3, 1.0, 1.5, 2.0, 2.2, 4.0, 7.3])
def test_kernels_are_symmetric_means(length: float) -> None:
    kernel = make_period_kernel(length)
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel[::-1])
    assert (len(kernel) == 1) == (length <= 1)


def test_heat_of_the_border_and_of_padding_disappears() -> None:
    image, values = make_image(), np.full(SHAPE, 0.1, np.float32)
    image[:6] = image[:, :, -5:] = 0.0  # padding
    for axis in range(3):
        edges: list[Any] = [slice(None)] * 3
        edges[axis] = [0, -1]
        values[tuple(edges)] = 1.0
    values[:7], values[:, :, -6:] = 1.0, 1.0  # the network takes padding for an edge
    found = clean_map(values, image, PERIOD)
    assert found.max() == pytest.approx(0.1)
    assert found[:6].max() == found[:, :, -5:].max() == 0.0
    content = find_content_box(image)
    assert content == (slice(6, 40), slice(0, 44), slice(0, 43))
    assert find_inner_box(content, PERIOD) == (slice(7, 39), slice(2, 42), slice(2, 41))


def test_a_channel_that_varies_is_no_padding() -> None:
    image = np.stack([np.zeros(SHAPE, np.float32), make_image()])
    assert find_content_box(image) == tuple(slice(0, size) for size in SHAPE)
    assert find_content_box(0 * image) == tuple(slice(0, size) for size in SHAPE)


@pytest.mark.parametrize(
    ("config", "period"),
    [
        ({}, (1.0, 1.0, 1.0)),
        ({"network": 3}, (1.0, 1.0, 1.0)),
        ({"network": {"half_resolution": False}}, (1.0, 1.0, 1.0)),
        ({"network": {"half_resolution": True}}, (2.0, 2.0, 2.0)),
        (
            {
                "network": {"half_resolution": True},
                "preprocessing": {"spacing": [1.0, 1.0, 2.0]},
            },
            (1.0, 2.0, 8.0),
        ),
        (
            {"network": {"half_resolution": True}, "preprocessing": {"spacing": ["x", -1, 0]}},
            (2.0, 2.0, 2.0),
        ),
        (
            {"network": {"half_resolution": True}, "preprocessing": {"spacing": [900, 1, 1]}},
            (32.0, 2.0, 4.0),
        ),
    ],
)
def test_the_period_is_that_of_the_network(
    project: Project, config: dict[str, Any], period: tuple[float, ...]
) -> None:
    run = project.runs.create("dycon", config)
    assert find_period(project, run.id, (4.0, 1.0, 0.5)) == period


def test_files_keep_the_map_and_regions_are_not_in_the_border(project: Project) -> None:
    run = project.runs.create("dycon", {"network": {"half_resolution": True}})
    shape = project.read_image("scan-3").shape
    uncertainty = np.full(shape, 0.01, np.float32)
    uncertainty[:, -1] = 1.0  # of an axis with 22 voxels; below 20, no slice is left out
    uncertainty[8:12, 8:12, 8:12] = 0.9
    project.predictions.write(
        run.id, "scan-3", np.zeros(shape, np.uint8), uncertainty, 0 * uncertainty
    )
    case = load_case(project, "scan-3").case
    assert case.hotspots
    centers = [hotspot.center for hotspot in case.hotspots]
    assert all(h < shape[1] - 1 for _, h, _ in centers), centers
    assert case.uncertainty is not None
    assert case.uncertainty[:, -1].max() < 0.5
    written = project.predictions.read(run.id, "scan-3", "uncertainty")
    assert written[:, -1].min() == pytest.approx(1.0, abs=0.01)
