"""A segmentation with atlases tells how far it is, so that its remaining time can be estimated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from napari_dycon.engine.atlas.label_fusion import TILE_SIZE, label_probabilities
from napari_dycon.engine.atlas.segmentation import REGISTRATION_SHARE, segment_with_atlases
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.data.preprocessing import save_array

CPU = torch.device("cpu")


def make_scan(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright box in noise, and its label; the box is at nearly the same place for each seed."""
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 4 + seed % 2, 3 * n // 4) for n in shape)] = 1
    noise = np.random.default_rng(seed).normal(0, 0.1, shape)
    return (label + noise)[None].astype(np.float32), label


def test_fusion_reports_each_tile() -> None:
    shape = (4 * TILE_SIZE[0], 20, 20)
    scans = [make_scan(shape, seed) for seed in range(3)]
    reported: list[float] = []
    label_probabilities(
        scans[0][0], [image for image, _ in scans[1:]], [label for _, label in scans[1:]], 2,
        on_fraction=reported.append,
    )  # fmt: skip
    assert len(reported) > 1
    assert reported == sorted(reported)
    assert reported[-1] == 1.0


def test_registration_counts_for_its_share(tmp_path: Path) -> None:
    shape = (24, 24, 24)
    atlases = []
    for seed in (1, 2):
        image, label = make_scan(shape, seed)
        case = LabeledCase(str(seed), tmp_path / f"{seed}.npy", tmp_path / f"{seed}-label.npy")
        save_array(case.image, image)
        save_array(case.label, label)
        atlases.append(case)
    reported: list[float] = []
    image, _ = make_scan(shape, 0)
    result = segment_with_atlases(image, [atlases], 2, CPU, reported.append)
    assert result is not None
    assert reported[0] == REGISTRATION_SHARE
    assert reported == sorted(reported)
    assert reported[-1] == 1.0
