"""Prediction loop over the scans.

It replaces MONAI's ``SupervisedEvaluator``, which requires pytorch-ignite.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch import nn

logger = logging.getLogger(__name__)


class Predictor:
    """Predict each scan of a dataset and pass it to the postprocessing, which saves the results."""

    def __init__(
        self,
        dataset: Sequence[dict[str, Any]],
        network: nn.Module,
        inferer: Callable[..., torch.Tensor],
        postprocessing: Callable[[dict[str, Any]], Any],
    ) -> None:
        self.dataset = dataset
        self.network = network
        self.inferer = inferer
        self.postprocessing = postprocessing

    def run(self) -> None:
        """Predict all scans, one by one."""
        self.network.eval()
        for number in range(len(self.dataset)):
            self._predict(self.dataset[number])
            logger.info("%d of %d scans", number + 1, len(self.dataset))

    def _predict(self, scan: dict[str, Any]) -> None:
        image = scan["image"]
        if not torch.isfinite(image).all():
            raise ValueError(
                f"{scan['name']} contains NaN or infinite voxels; replace them with finite values."
            )
        image.meta["filename_or_obj"] = f"{scan['name']}.nii.gz"  # MONAI names the results after it
        pred = self.inferer(image.as_tensor()[None], self.network, size=scan["image_size"])[0]
        self.postprocessing({"image": image, "pred": MetaTensor(pred, meta=image.meta)})
