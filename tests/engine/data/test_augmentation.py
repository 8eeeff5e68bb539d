"""Augmentation of whole batches, compared with MONAI's transforms of single patches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import (
    AdjustContrast,
    AffineGrid,
    Compose,
    GaussianSmooth,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandSimulateLowResolution,
    RandSimulateLowResolutiond,
    Resample,
)
from scipy import ndimage
from scipy.stats import ks_2samp
from torch import Tensor

from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.augmentation import (
    Augmentation,
    adjust_contrast,
    augment_patches,
    build_affine_matrices,
    compute_crop_shape,
    compute_rotation_limits,
    draw_augmentation,
    filter_axes,
    sample_patches,
)

PATCH = (16, 24, 20)
CONFIG = make_config(
    "supervised", **{"batch.patch_size": list(PATCH), "network.filters": [4, 8, 8]}
)
MARGIN = compute_crop_shape(PATCH, CONFIG)
RARE = 1e-3  # chance of a difference as large between equal distributions


def make_monai_reference(
    config: TrainConfig, patch: tuple[int, int, int], keys: tuple[str, ...]
) -> Compose:
    """MONAI's transforms with the distribution that is wanted."""
    angle, scale = (
        float(np.deg2rad(config.augmentation.max_rotation_degrees)),
        config.augmentation.scale_range,
    )
    return Compose(
        [
            RandAffined(
                keys,
                prob=1.0,
                spatial_size=patch,
                rotate_range=(angle,) * 3,
                scale_range=((-scale * 0.8, scale),) * 3,
                mode=["nearest" if key == "label" else "bilinear" for key in keys],
                padding_mode="border",
            ),
            RandGaussianSmoothd(
                "image", prob=0.2, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), sigma_z=(0.3, 1.0)
            ),
            RandSimulateLowResolutiond("image", prob=0.1, zoom_range=(0.6, 1.0)),
            RandGaussianNoised("image", prob=0.3, std=0.12),
            RandScaleIntensityd("image", prob=0.5, factors=0.25),
            RandAdjustContrastd("image", prob=0.4, gamma=(0.7, 1.5), retain_stats=True),
        ]
    )


def make_volume(seed: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """A crop with some structure, ``(C, d, h, w)``, and a label ``(d, h, w)`` of it."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.normal(size=(channels, *MARGIN)), (0, 2, 2, 2))
    image = image / image.std() + rng.normal(0, 0.2, image.shape)
    return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(
        (image[0] > 0.5).astype(np.uint8)
    )


def draw_augmentations(count: int, **changes: Any) -> list[Augmentation]:
    rng = np.random.default_rng(1)
    return [draw_augmentation(rng, CONFIG.with_changes(**changes)) for _ in range(count)]


def to_tensor(array: Any) -> Tensor:
    return torch.as_tensor(np.asarray(array))


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rotation_and_scaling_agree_with_monai() -> None:
    image, label = make_volume(0, channels=2)
    chosen = draw_augmentations(6)
    images, labels = sample_patches(
        image.expand(6, *image.shape),
        label.expand(6, *label.shape),
        build_affine_matrices(chosen),
        PATCH,
    )
    assert labels is not None
    assert labels.dtype == torch.int64
    for number, each in enumerate(chosen):
        grid, _ = AffineGrid(rotate_params=each.angles, scale_params=each.scales)(PATCH)
        wanted = Resample(padding_mode="border")(image, grid=grid, mode="bilinear")
        assert torch.allclose(images[number], to_tensor(wanted), atol=2e-4)
        wanted = Resample(padding_mode="border")(label[None], grid=grid, mode="nearest")
        # A voxel between two may go to either, depending on rounding.
        assert (labels[number] != to_tensor(wanted)[0]).float().mean() < 1e-3


def test_voxels_stay_in_place_without_rotation_and_scaling() -> None:
    image, label = make_volume(0)
    images, labels = sample_patches(
        image[None], label[None], build_affine_matrices([Augmentation()]), PATCH
    )
    inside = tuple(
        slice((m - p) // 2, (m - p) // 2 + p) for m, p in zip(MARGIN, PATCH, strict=True)
    )
    assert torch.allclose(images[0], image[(slice(None), *inside)], atol=1e-4)
    assert labels is not None
    assert torch.equal(labels[0], label[inside].long())


def test_mirroring_exchanges_left_and_right() -> None:
    image, label = make_volume(0)
    (chosen,) = draw_augmentations(1)
    both = build_affine_matrices([replace(chosen, flip_left_right=m) for m in (False, True)])
    images, labels = sample_patches(
        image.expand(2, *image.shape), label.expand(2, *label.shape), both, PATCH
    )
    assert labels is not None
    assert torch.allclose(images[0].flip(-1), images[1], atol=1e-4)
    assert torch.equal(labels[0].flip(-1), labels[1])


def test_labels_move_with_the_image() -> None:
    """Each voxel holds its own coordinate, once as an intensity and once as a label."""
    chosen = draw_augmentations(8, **{"augmentation.flip_left_right": True})
    for axis in range(3):
        view = [1] * 3
        view[axis] = -1
        coordinate = torch.arange(MARGIN[axis]).view(view).expand(MARGIN).contiguous()
        image = coordinate.float().expand(8, 1, *MARGIN)
        label = coordinate.to(torch.uint8).expand(8, *MARGIN)
        images, labels = sample_patches(image, label, build_affine_matrices(chosen), PATCH)
        assert labels is not None
        assert (images[:, 0] - labels).abs().max() < 0.5 + 1e-3


@pytest.mark.parametrize("sigma", [(0.3, 0.6, 1.0), (1.0, 0.37, 0.3)])
def test_blur_agrees_with_monai(sigma: tuple[float, float, float]) -> None:
    image, _ = make_volume(2, channels=2)
    wanted = to_tensor(GaussianSmooth(sigma)(image))
    assert torch.allclose(filter_axes(image, sigma, None), wanted, atol=1e-5)


@pytest.mark.parametrize("zoom", [0.6, 0.77, 0.95, 1.0])
def test_low_resolution_agrees_with_monai(zoom: float) -> None:
    image, _ = make_volume(2, channels=2)
    transform = RandSimulateLowResolution(prob=1.0)
    transform.randomize()
    transform.zoom_factor = zoom
    wanted = to_tensor(transform(image, randomize=False))
    assert torch.allclose(filter_axes(image, None, zoom), wanted, atol=1e-5)
    blurred = GaussianSmooth((0.5, 0.5, 0.5))(image)
    wanted = to_tensor(transform(blurred, randomize=False))
    assert torch.allclose(filter_axes(image, (0.5, 0.5, 0.5), zoom), wanted, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.7, 1.0, 1.5])
def test_contrast_agrees_with_monai(gamma: float) -> None:
    image, _ = make_volume(3, channels=2)
    wanted = to_tensor(AdjustContrast(gamma, retain_stats=True)(image))
    assert torch.allclose(adjust_contrast(image, gamma), wanted, atol=1e-4)
    flat = torch.full((1, 4, 4, 4), 0.3)
    assert torch.allclose(adjust_contrast(flat, gamma), flat)


def test_noise_and_brightness_follow_the_sampled_parameters() -> None:
    image, _ = make_volume(4)
    chosen = Augmentation(noise_std=0.1), Augmentation(brightness=-0.2), Augmentation()
    images, none = augment_patches(
        image.expand(3, *image.shape), None, chosen, PATCH, make_generator()
    )
    assert none is None
    noise = images[0] - images[2]
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.01)
    assert torch.allclose(images[1], 0.8 * images[2], atol=1e-6)


def test_sampled_parameters_have_the_ranges_and_probabilities_of_monai() -> None:
    count = 4000
    found = draw_augmentations(count, **{"augmentation.flip_left_right": True})
    steps = make_monai_reference(CONFIG, PATCH, ("image",)).set_random_state(seed=0).transforms
    affine, blur, low, noise, brightness, gamma = steps
    low.sim_lowres_tfm.set_random_state(seed=0)
    array = np.zeros((1, 16, 16, 16), np.float32)
    wanted: dict[str, list[float]] = {}

    def note(**values: Any) -> None:
        for name, value in values.items():
            wanted.setdefault(name, []).append(value)

    for _ in range(count):
        grid = affine.rand_affine.rand_affine_grid
        grid.randomize()
        note(angle=grid.rotate_params[0], scale=grid.scale_params[1])
        for step in (blur, low, noise, brightness, gamma):
            step.randomize(None)
        if blur._do_transform:
            blur.rand_smooth.randomize()
            note(blur=blur.rand_smooth.y)
        if low._do_transform:
            low.sim_lowres_tfm.randomize()
            note(zoom=low.sim_lowres_tfm.zoom_factor)
        if noise._do_transform:
            noise.rand_gaussian_noise.randomize(array)
            note(noise=float(noise.rand_gaussian_noise.noise.std()))
        if brightness._do_transform:
            brightness.scaler.randomize(None)
            note(brightness=brightness.scaler.factor)
        if gamma._do_transform:
            gamma.adjuster.randomize(None)
            note(gamma=gamma.adjuster.gamma_value)
    ours = {
        "angle": [each.angles[0] for each in found],
        "scale": [each.scales[1] for each in found],
        "blur": [each.blur[1] for each in found if each.blur],
        "zoom": [each.zoom for each in found if each.zoom],
        "noise": [each.noise_std for each in found if each.noise_std],
        "brightness": [each.brightness for each in found if each.brightness],
        "gamma": [each.gamma for each in found if each.gamma],
    }
    assert set(wanted) == set(ours)
    for name, values in ours.items():
        assert abs(len(values) - len(wanted[name])) < 4 * np.sqrt(count / 2), name
        assert ks_2samp(values, wanted[name]).pvalue > RARE, name
    mirrored = np.mean([each.flip_left_right for each in found])
    assert 0.45 < mirrored < 0.55
    assert not any(each.flip_left_right for each in draw_augmentations(100))


def _measures(image: Tensor, label: Tensor) -> list[float]:
    steps = [image.diff(dim=axis).square().mean() for axis in (-3, -2, -1)]
    values = [image.mean(), image.std(), image.min(), image.max(), *steps, label.float().mean()]
    return [float(value) for value in values]


def test_whole_patches_are_distributed_like_monais() -> None:
    count = 300
    image, label = make_volume(5)
    transform = make_monai_reference(CONFIG, PATCH, ("image", "label")).set_random_state(seed=0)
    wanted = []
    for _ in range(count):
        made = transform({"image": image.numpy(), "label": label[None].numpy()})
        wanted.append(_measures(to_tensor(made["image"]), to_tensor(made["label"])))
    images, labels = augment_patches(
        image.expand(count, *image.shape), label.expand(count, *label.shape),
        draw_augmentations(count), PATCH, make_generator(),
    )  # fmt: skip
    assert labels is not None
    found = [_measures(*each) for each in zip(images, labels, strict=True)]
    names = ("mean", "std", "min", "max", "gradient D", "gradient H", "gradient W", "label")
    for name, one, two in zip(names, np.transpose(found), np.transpose(wanted), strict=True):
        assert ks_2samp(one, two).pvalue > RARE, name
        assert np.mean(one) == pytest.approx(np.mean(two), abs=4 * np.std(two) / np.sqrt(count))


def test_half_precision_crops_give_the_same_patches() -> None:
    image, label = make_volume(6)
    chosen = draw_augmentations(1)
    one, _ = augment_patches(image[None], label[None], chosen, PATCH, make_generator())
    two, _ = augment_patches(image[None].half(), label[None], chosen, PATCH, make_generator())
    assert two.dtype == torch.float32
    assert torch.allclose(one, two, atol=1e-2)


def test_augmentation_never_synchronizes_with_the_device() -> None:
    """A device without values cannot be asked for any, and takes no tensor of the host."""
    everything = Augmentation(
        (0.1, 0.2, 0.1), (0.9, 1.1, 1.0), True, (0.5, 0.6, 0.7), 0.7, 0.1, 0.1, 1.2
    )
    image = torch.empty(2, 1, *MARGIN, dtype=torch.float16, device="meta")
    label = torch.empty(2, *MARGIN, dtype=torch.uint8, device="meta")
    images, labels = augment_patches(image, label, [everything] * 2, PATCH, make_generator())
    assert labels is not None
    assert images.device == labels.device == image.device
    assert images.shape == (2, 1, *PATCH)


def test_thin_patches_are_hardly_tilted() -> None:
    assert compute_rotation_limits((48, 32, 64)) == (1.0, 1.0, 1.0)
    assert compute_rotation_limits((16, 16, 16)) == (1.0, 1.0, 1.0)
    assert compute_rotation_limits((8, 128, 64)) == (1.0, 0.25, 0.125)
    config = CONFIG.with_changes({"batch.patch_size": (8, 128, 128)})
    drawn = [draw_augmentation(np.random.default_rng(n), config) for n in range(50)]
    assert max(abs(each.angles[1]) for each in drawn) * 64 < 4  # voxels at its ends
    assert max(abs(each.angles[0]) for each in drawn) > 0.2
