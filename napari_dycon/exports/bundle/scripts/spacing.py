"""Resampling to the spacing of the network, over the same field of view."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import MapTransform


class ToSpacingd(MapTransform):  # type: ignore[misc]
    """Resample to a spacing in millimeters, keeping the outer edges of the volume.

    MONAI's ``Spacingd`` keeps the center of the first voxel instead, which differs from the
    preprocessing in training. The original size is stored as ``KEY_size``. The transform is not
    recorded for ``Invertd``, because the inferer returns results on the original grid.
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
