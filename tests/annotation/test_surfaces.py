"""Surfaces lie where the structure is, keep its volume, and are bounded in size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.annotation.surfaces import (
    MAX_VOXELS,
    choose_factors,
    extract_surface,
)


def make_ball(shape: tuple[int, ...], center: Any, radius_mm: float, spacing: Any) -> Any:
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    squares = (((a - c) * s) ** 2 for a, c, s in zip(axes, center, spacing, strict=True))
    return sum(squares) <= radius_mm**2


def volume(mesh: Any, spacing: Any) -> float:
    """Volume inside a closed surface in cubic mm, by the divergence theorem."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] * np.array(spacing) for i in range(3))
    return abs(float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 0.7)])
def test_a_ball_keeps_place_and_volume(spacing: tuple[float, float, float]) -> None:
    shape = tuple(int(60 / s) for s in spacing)
    center = [0.55 * n for n in shape]
    mesh = extract_surface(make_ball(shape, center, 18, spacing), spacing)
    assert mesh is not None
    assert volume(mesh, spacing) == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.06)
    middle = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
    assert np.allclose(middle * spacing, np.array(center) * spacing, atol=1.2 * max(spacing) / 2)
    radii = np.linalg.norm((mesh.vertices - center) * np.array(spacing), axis=1)
    assert radii.std() < 0.35 * max(spacing)  # smooth: steps between slices are gone
    front = mesh.vertices[:, 1] < center[1] - 12 / spacing[1]
    back = mesh.vertices[:, 1] > center[1] + 12 / spacing[1]
    assert mesh.brightness[front].mean() > mesh.brightness[back].mean() + 0.4
    assert mesh.brightness.min() >= 0
    assert mesh.brightness.max() <= 1.0001


def test_large_structures_are_coarser_but_in_place() -> None:
    spacing, shape = (0.5, 0.5, 0.5), (260, 260, 260)
    center = (130.0, 120.0, 140.0)
    mask = make_ball(shape, center, 55, spacing)
    mesh = extract_surface(mask, spacing, max_faces=40_000)
    assert mesh is not None
    assert len(mesh.faces) <= 40_000
    assert volume(mesh, spacing) == pytest.approx(4 / 3 * np.pi * 55**3, rel=0.06)
    assert np.allclose((mesh.vertices.min(0) + mesh.vertices.max(0)) / 2, center, atol=2)


def test_a_single_voxel_is_shown() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[3, 4, 5] = True
    mesh = extract_surface(mask, (1.0, 1.0, 1.0))
    assert mesh is not None
    assert np.allclose(mesh.vertices.mean(0), (3, 4, 5), atol=0.1)


def test_surfaces_at_the_edge_stay_within_the_scan() -> None:
    """Otherwise napari's sliders would extend beyond the scan."""
    mask = np.ones((12, 13, 14), bool)
    mesh = extract_surface(mask, (1.0, 2.0, 3.0))
    assert mesh is not None
    assert (mesh.vertices >= 0).all()
    assert (mesh.vertices <= np.array(mask.shape) - 1).all()


def test_nothing_gives_no_surface() -> None:
    assert extract_surface(np.zeros((5, 5, 5), bool), (1.0, 1.0, 1.0)) is None


def test_the_finest_axis_is_coarsened_first() -> None:
    assert choose_factors((300, 512, 512), (4.0, 0.5, 0.5), MAX_VOXELS) == (1, 8, 8)
    assert choose_factors((300, 512, 512), (1.0, 0.5, 0.5), MAX_VOXELS) == (4, 4, 4)
