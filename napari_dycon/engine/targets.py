"""Stored targets: what the networks predict for the unlabelled scans, made once and learnt from.

A teacher that runs at every step doubles the price of the step, and a young one misleads. Here the
networks learn from the labelled scans first; then student and teacher together predict every
unlabelled scan once, whole, and the run goes on with these probabilities as targets. No label of an
unlabelled case is involved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from napari_dycon.engine.checkpoint import Model
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.events import Event
from napari_dycon.engine.patches import UnlabelledCase
from napari_dycon.engine.predict import QUICK_OVERLAP, member_probabilities
from napari_dycon.engine.preprocess import save_array


def target_round(config: TrainConfig, progress: float) -> int:
    """Which targets a run learns from: 0 for none yet, then 1 to ``target_rounds``."""
    if not config.stored_targets or progress < config.unlabelled_start:
        return 0
    share = (progress - config.unlabelled_start) / max(1.0 - config.unlabelled_start, 1e-6)
    return 1 + min(int(share * config.target_rounds), config.target_rounds - 1)


def target_bounds(config: TrainConfig) -> tuple[float, ...]:
    """Shares of the run at which targets are made; none without stored targets."""
    if not config.stored_targets:
        return ()
    start, rounds = config.unlabelled_start, config.target_rounds
    return tuple(start + (1.0 - start) * number / rounds for number in range(rounds))


def with_targets(cases: list[UnlabelledCase], folder: Path) -> list[UnlabelledCase]:
    """Return the cases with the place of their stored targets."""
    return [dataclasses.replace(case, teacher=folder / f"{case.id}.npy") for case in cases]


def store_targets(
    cases: list[UnlabelledCase], model: Model, device: torch.device, dtype: torch.dtype
) -> Iterator[Event]:
    """Predict the cases into the files they name; yields an event a case."""
    for number, case in enumerate(cases, start=1):
        assert case.teacher is not None
        image = torch.from_numpy(np.load(case.image))
        members = member_probabilities(model, image, device, dtype, overlap=QUICK_OVERLAP)
        mean = torch.stack(members).mean(dim=0)
        save_array(case.teacher, (mean * 255.0).round().to(torch.uint8).numpy())
        yield {"event": "targets", "done": number, "total": len(cases)}
