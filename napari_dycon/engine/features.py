"""What a scan looks like to the network: one vector a scan, to tell alike from unlike scans.

The bottleneck's channels of the teacher, averaged over the scan and over what it predicts as
foreground. Two scans are alike when their vectors lie close (see ``suggestions.py``).
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine.cells import mean_of_cells
from napari_dycon.engine.checkpoint import Model
from napari_dycon.engine.losses import at_least_float32


@torch.no_grad()
def scan_features(
    model: Model, image: Tensor, device: torch.device, dtype: torch.dtype
) -> list[float]:
    """Vector of twice the bottleneck's channels.

    Parameters
    ----------
    image : (C, D, H, W), prepared; windows of the patch's size lie side by side over it
    """
    patch = model.config.patch
    assert patch is not None
    missing = [-n % p for n, p in zip(image.shape[1:], patch, strict=True)]
    pad = [side for n in reversed(missing) for side in (n // 2, n - n // 2)]
    padded = F.pad(image[None], pad, mode="replicate")
    everywhere = inside = torch.zeros(1, device=device)
    weights = []
    cells = 0.0
    teacher = model.teacher.eval()
    starts = (range(0, n, p) for n, p in zip(padded.shape[2:], patch, strict=True))
    for d, h, w in itertools.product(*starts):
        window = padded[:, :, d : d + patch[0], h : h + patch[1], w : w + patch[2]].to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits, bottleneck = teacher.describe(window)
        values = at_least_float32(bottleneck)[0]
        chance = 1.0 - F.softmax(at_least_float32(logits), dim=1)[:, :1]
        share = mean_of_cells(chance, (values.shape[1], values.shape[2], values.shape[3]))[0]
        everywhere = everywhere + values.sum(dim=(1, 2, 3))
        inside = inside + (share * values).sum(dim=(1, 2, 3))
        cells += float(share.numel())
        weights.append(share.sum())
    weight = sum(torch.stack(weights).tolist())
    vector = torch.cat([inside / max(weight, 1e-6), everywhere / max(cells, 1.0)])
    return [round(v, 5) for v in vector.tolist()]
