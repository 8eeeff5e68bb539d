"""Scans and labels on the grid of the network: no annotation is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.planning import compute_fingerprint, plan_training
from napari_dycon.engine.data.preprocessing import normalize, prepare_label
from napari_dycon.io.volume import Source, Volume


def prepare_label_on_grid(
    label: np.ndarray, spacing: tuple[float, ...], target: tuple[float, ...]
) -> Any:
    affine = np.diag([*spacing, 1.0])
    d, h, w = label.shape
    volume = Volume(np.zeros(label.shape), affine, Source(None, (d, h, w), affine))
    assert volume.spacing_mm == spacing
    return prepare_label(
        label, volume, make_config("supervised", **{"preprocessing.spacing": list(target)})
    )


@pytest.mark.parametrize("number", range(12))
def test_a_single_annotated_slice_survives_a_coarser_grid(number: int) -> None:
    label = np.full((12, 10, 10), 255, np.uint8)
    label[number] = 0
    label[number, 3:7, 3:7] = 1
    moved = prepare_label_on_grid(label, (1.0, 1.0, 1.0), (2.0, 1.0, 1.0))
    assert moved.shape == (6, 10, 10)
    assert np.array_equal(moved[number // 2], label[number])
    rest = np.delete(moved, number // 2, axis=0)
    assert (rest == 255).all()


def test_a_coarser_voxel_has_the_majority_value_of_its_annotated_voxels() -> None:
    label = np.zeros((2, 2, 2), np.uint8)
    label[0] = 2
    label[1, 0, 0] = 2
    assert prepare_label_on_grid(label, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)).item() == 2
    label[:] = 255
    label[0, 0, 0] = 1
    assert prepare_label_on_grid(label, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)).item() == 1


def test_a_finer_grid_repeats_voxels() -> None:
    label = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    label[1, 1, 1] = 255
    moved = prepare_label_on_grid(label, (2.0, 2.0, 2.0), (1.0, 1.0, 1.0))
    assert np.array_equal(moved, label.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_intensities_of_ct_channels_are_normalized_in_hounsfield_units() -> None:
    rng = np.random.default_rng(0)
    ct = rng.uniform(-1000, 400, (20, 20, 20)).astype(np.float32)
    pet = rng.gamma(1.0, 3.0, (20, 20, 20)).astype(np.float32)
    alone = plan_training(
        make_config("supervised"), [compute_fingerprint(ct, (1.0, 1.0, 1.0))], "cpu"
    )
    assert alone.preprocessing.normalization == "clip"
    low, high = alone.preprocessing.intensity_window or (0.0, 0.0)
    expected = np.clip((ct - (low + high) / 2) / ((high - low) / 2), -1, 1)
    np.testing.assert_allclose(normalize(ct[None], alone)[0], expected, atol=1e-5)
    for both in (np.stack([ct, pet]), np.stack([pet, ct])):
        config = plan_training(
            make_config("supervised"), [compute_fingerprint(both, (1.0, 1.0, 1.0))], "cpu"
        )
        assert config.preprocessing.normalization == "zscore"
        found = normalize(both, config)
        np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(found.std(axis=(1, 2, 3)), 1, atol=1e-3)


def test_a_constant_channel_stays_finite() -> None:
    config = make_config("supervised", **{"preprocessing.normalization": "zscore"})
    found = normalize(np.full((1, 4, 4, 4), 7.0), config)
    assert np.array_equal(found, np.zeros((1, 4, 4, 4)))
