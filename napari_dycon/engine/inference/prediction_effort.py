"""Efforts to predict a scan, from the ensemble to a single network, and how long they take.

A run with a time limit cannot always afford the ensemble for previews and validation. The duration
of a prediction is known before it starts from that of one window.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from enum import Enum

import torch

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.device import disable_cudnn_benchmark, is_out_of_memory
from napari_dycon.engine.inference.windows import plan_windows
from napari_dycon.engine.losses.probability import upcast

INITIAL_OVERHEAD = 1.3  # duration of a prediction relative to that of its windows
MIN_OVERHEAD, MAX_OVERHEAD = 0.3, 5.0


class Effort(Enum):
    """How a scan is predicted, from the most accurate to the fastest way."""

    ENSEMBLE = "all scales, student and teacher"
    SINGLE = "the student alone, at the first scale"
    COARSE = "the student alone, with windows that do not overlap"


def reduce_effort(model: TrainedModel, effort: Effort) -> TrainedModel:
    """Return a model that predicts with an effort."""
    if effort is Effort.ENSEMBLE:
        return model
    inference = model.config.inference
    single = inference.model_copy(update={"tta_scales": inference.tta_scales[:1]})
    config = model.config.model_copy(update={"inference": single})
    overlap_side = 0.0 if effort is Effort.COARSE else model.overlap_side
    return dataclasses.replace(model, config=config, overlap_side=overlap_side)


def count_windows(model: TrainedModel, shape: Sequence[int], effort: Effort) -> int:
    """Count the windows of a fast prediction.

    Parameters
    ----------
    shape : (D, H, W) of the prepared scan
    """
    reduced = reduce_effort(model, effort)
    patch = reduced.config.batch.patch_size
    assert patch is not None
    count = 0
    for scale in reduced.config.inference.tta_scales:
        size = [max(round(n * scale), 1) for n in shape]
        windows = plan_windows(
            size, patch, side=reduced.window_side, overlap_side=reduced.overlap_side
        )
        count += math.prod(windows.counts)
    return count


class PredictionTimer:
    """Expected durations of predictions, from the time of one window and finished predictions."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._window_s: float | None = None
        self._overhead = INITIAL_OVERHEAD

    def measure(self, model: TrainedModel) -> None:
        """Measure the time of one window, once; it is infinite if memory does not suffice."""
        if self._window_s is not None:
            return
        try:
            # The first window allocates memory and prepares kernels.
            self._window_s = min(self._time_window(model) for _ in range(2))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._window_s = math.inf

    @torch.inference_mode()
    def _time_window(self, model: TrainedModel) -> float:
        patch, network = model.config.batch.patch_size, model.student
        assert patch is not None
        window = torch.zeros(1, model.channels, *patch, device=self._device)
        was_training = network.training
        begin = time.perf_counter()
        try:
            network.eval()
            with (
                disable_cudnn_benchmark(),
                torch.autocast(
                    self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32
                ),
            ):
                logits, _ = network.forward_with_bottleneck(window)
            upcast(logits).cpu()  # waits for a GPU
        finally:
            network.train(was_training)
        return time.perf_counter() - begin

    def estimate_windows(self, count: int) -> float:
        """Return the expected seconds of a number of windows; 0 if none was measured."""
        return (self._window_s or 0.0) * self._overhead * count

    def estimate(self, model: TrainedModel, shape: Sequence[int], effort: Effort) -> float:
        """Return the expected seconds of the prediction of a prepared scan ``(D, H, W)``."""
        return self.estimate_windows(count_windows(model, shape, effort))

    def record(
        self, model: TrainedModel, shape: Sequence[int], effort: Effort, seconds: float
    ) -> None:
        """Learn from the duration of a finished prediction."""
        if self._window_s is None or not math.isfinite(self._window_s):
            return
        windows_s = self._window_s * count_windows(model, shape, effort)
        found = min(max(seconds / windows_s, MIN_OVERHEAD), MAX_OVERHEAD)
        self._overhead = 0.5 * (self._overhead + found)
