"""Scans on the network's spacing, over the same field of view."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import MapTransform


class ToSpacingd(MapTransform):  # type: ignore[misc]
    """Resample to a spacing in millimeters, the outer edges of the volume kept in place.

    MONAI's ``Spacingd`` keeps the center of the first voxel or an extent that is no whole number of
    voxels, which the network did not see. The size before is noted as ``KEY_size``; the step is no
    part of the trace that ``Invertd`` follows, because the inferer answers on the old grid.
    """

    def __init__(self, keys: str | Sequence[str], spacing: Sequence[float]) -> None:
        super().__init__(keys)
        self.spacing = tuple(spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample ``(C, D, H, W)``."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            old = tuple(image.shape[1:])
            result[f"{key}_size"] = old
            lengths = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
            new = tuple(
                n if abs(s - t) <= 0.01 * t else max(round(n * s / t), 1)
                for n, s, t in zip(old, lengths, self.spacing, strict=True)
            )
            if new != old:
                voxels = F.interpolate(
                    image.as_tensor()[None], size=new, mode="trilinear", align_corners=False
                )[0]
                result[key] = MetaTensor(
                    voxels, meta=image.meta, applied_operations=image.applied_operations
                )
        return result
