"""MONAI's dynamic 3D U-Net with a projection head on its bottleneck.

The backbone is MONAI's; this wrapper calls its blocks explicitly, because the contrastive losses
need the bottleneck features of the same forward pass (a forward hook would break under copying).

This file needs only torch and MONAI: exported MONAI bundles contain a copy of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks import SimpleASPP
from monai.networks.blocks.dynunet_block import UnetUpBlock
from monai.networks.nets import DynUNet
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from napari_dycon.engine.config import TrainConfig

FULL_RES_FILTERS = 8  # of the one layer at full resolution of a network at half resolution
# With so few filters, all of them can become evidence against a class. With a plain ReLU the
# network was then uncertain of that class everywhere (see benchmarks/NOTES.md).
FULL_RES_SLOPE = 0.2
# Minimum norm in the L2 normalization of embeddings, whose norm is usually the square root of their
# channels. Where all locations of a patch are equal, embeddings stay near 0 instead of amplifying
# rounding errors.
MIN_EMBEDDING_NORM = 1e-2


# oneDNN's bfloat16 convolutions (3.12, processors with avx512_bf16 but without AMX) over grids of
# one or two voxels read uninitialized memory, which gives wrong or non-finite gradients. Such small
# grids cost next to nothing in float32.
MIN_BFLOAT16_SIDE = 3

Norm = str | tuple[str, dict[str, object]]  # as MONAI specifies layers


class NetworkOutput(NamedTuple):
    """Logits ``(B, C, D, H, W)`` and, if requested, embeddings ``(B, E, d, h, w)``."""

    logits: Tensor
    embeddings: Tensor | None


class ProjectionHead(nn.Module):
    """Optional ASPP, trilinear ×2, 1×1×1 conv, norm, ReLU, 1×1×1 conv, norm; L2-normalized.

    The last norm sets the mean of each channel over a patch to 0 and its deviation to 1, which
    prevents all embeddings from collapsing to one vector. It is an instance norm (published
    networks use batch norm), so that embeddings do not depend on the other patches of the batch.
    """

    def __init__(self, channels: int, hidden: int, dim: int, *, aspp: bool, norm: Norm) -> None:
        super().__init__()
        self.aspp: nn.Module = nn.Identity()
        if aspp:
            branch = max(channels // 4, 1)
            self.aspp = SimpleASPP(
                3,
                channels,
                branch,
                kernel_sizes=(1, 3, 3, 3),
                dilations=(1, 6, 12, 18),
                norm_type=norm,
            )
            channels = 4 * branch
        self.layers = nn.Sequential(
            nn.Conv3d(channels, hidden, 1),
            nn.InstanceNorm3d(hidden, affine=True),
            nn.ReLU(inplace=True),
            nn.Conv3d(hidden, dim, 1),
        )
        # Twice the bottleneck's grid has at least eight locations, enough for a deviation.
        self.spread = nn.InstanceNorm3d(dim, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """Compute embeddings of bottleneck features ``(B, C, d, h, w)``."""
        features = self.aspp(features)
        features = F.interpolate(features, scale_factor=2, mode="trilinear", align_corners=False)
        return F.normalize(
            self.spread(self.layers(features).float()), dim=1, eps=MIN_EMBEDDING_NORM
        )


class FullResolutionHead(nn.Module):
    """Full-resolution logits from half-resolution features and the image."""

    def __init__(self, features: int, channels: int, classes: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(features, FULL_RES_FILTERS, 2, stride=2)
        self.layers = nn.Sequential(
            nn.Conv3d(FULL_RES_FILTERS + channels, FULL_RES_FILTERS, 3, padding=1, bias=False),
            nn.GroupNorm(FULL_RES_FILTERS, FULL_RES_FILTERS),
            nn.LeakyReLU(FULL_RES_SLOPE, inplace=True),
            nn.Conv3d(FULL_RES_FILTERS, classes, 1),
        )

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Compute logits from half-resolution features and the image."""
        features = crop_to_reference(self.up(features), image)
        logits: Tensor = self.layers(torch.cat([features, image], dim=1))
        return logits


class SingleImageConv3d(nn.Conv3d):
    """Convolution that also uses oneDNN for a single float32 image on a CPU.

    For a single small image torch chooses its native implementation, which takes up to five times
    as long for thin images (measured in torch 2.13); for batches of two it uses oneDNN.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (
            len(input) == 1
            and input.device.type == "cpu"
            and input.dtype == weight.dtype == torch.float32
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and not isinstance(self.padding, str)
        ):
            return torch.mkldnn_convolution(
                input, weight, bias, self.padding, self.stride, self.dilation, self.groups
            )
        output: Tensor = super()._conv_forward(input, weight, bias)
        return output


class SegmentationNetwork(nn.Module):
    """Encoder-decoder with ``len(filters)`` levels; each level halves the grid.

    Volumes may have any size: a side that is not a multiple of the stride is rounded up on the way
    down and cropped on the way up, so that no padding is needed.

    With ``half_resolution`` the first level is at half the image's resolution, and a thin layer
    upsamples its features. This takes about half the time, with the same accuracy for structures
    that are many voxels wide.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        filters: Sequence[int],
        *,
        norm: str,
        half_resolution: bool,
        projection_hidden: int,
        projection_dim: int,
        aspp: bool,
    ) -> None:
        super().__init__()
        levels = len(filters)
        self.backbone = DynUNet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=classes,
            kernel_size=[3] * levels,
            strides=[2 if half_resolution else 1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(filters),
            norm_name=_choose_norm(norm, filters),
        )
        self.fine: FullResolutionHead | None = None
        if half_resolution:
            self.fine = FullResolutionHead(filters[0], channels, classes)
            self.backbone.output_block = nn.Identity()  # replaced by the head
        self.projection = ProjectionHead(
            filters[-1],
            projection_hidden,
            projection_dim,
            aspp=aspp,
            norm=_choose_norm(norm, [4 * max(filters[-1] // 4, 1)]),
        )
        self.stride = 2 ** (levels - 1 + half_resolution)
        # Whether training keeps only the inputs of blocks and recomputes the rest. Running means of
        # a batch norm would then be updated twice.
        self.activation_checkpointing = False
        for module in self.modules():
            if type(module) is nn.Conv3d:
                module.__class__ = SingleImageConv3d

    def forward(self, image: Tensor, *, embed: bool = False) -> NetworkOutput:
        """Compute logits of ``(B, channels, D, H, W)``, and embeddings if ``embed`` is true."""
        logits, bottleneck = self.forward_with_bottleneck(image)
        return NetworkOutput(logits, self._project(bottleneck, image) if embed else None)

    def forward_with_bottleneck(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits of ``(B, channels, D, H, W)`` and the bottleneck's features."""
        net = self.backbone
        skips, bottleneck = self._encode(image)
        features = bottleneck
        for block, skip in zip(net.upsamples, reversed(skips), strict=True):
            features = self._run(partial(decode, block), features, skip)
        if self.fine:
            return self._run(self.fine, features, image), bottleneck
        return net.output_block(features), bottleneck

    def encode(self, image: Tensor) -> Tensor:
        """Compute embeddings of ``(B, channels, D, H, W)`` without running the decoder."""
        return self._project(self._encode(image)[1], image)

    def _project(self, bottleneck: Tensor, image: Tensor) -> Tensor:
        """Compute embeddings of the locations inside the image, without those from rounding up."""
        embeddings: Tensor = self.projection(bottleneck)
        for axis in (2, 3, 4):
            count = -(-2 * image.shape[axis] // self.stride)
            embeddings = embeddings.narrow(axis, 0, count)
        return embeddings

    def _encode(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        net = self.backbone
        skips = [self._run(net.input_block, image)]
        for block in net.downsamples:
            skips.append(self._run(block, skips[-1]))
        return skips, self._run(net.bottleneck, skips[-1])

    def _run(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if not self.activation_checkpointing or not torch.is_grad_enabled():
            return run_in_safe_precision(block, *inputs)
        # Blocks draw no random numbers: there is no random state to restore.
        output: Tensor = checkpoint(
            run_in_safe_precision, block, *inputs, use_reentrant=False, preserve_rng_state=False
        )
        return output


def decode(block: UnetUpBlock, features: Tensor, skip: Tensor) -> Tensor:
    """Run a block of MONAI's decoder on a skip connection of any size."""
    features = crop_to_reference(block.transp_conv(features), skip)
    decoded: Tensor = block.conv_block(torch.cat([features, skip], dim=1))
    return decoded


def crop_to_reference(features: Tensor, reference: Tensor) -> Tensor:
    """Crop ``(B, C, D, H, W)`` at the end of each axis to the size of a reference."""
    for axis in (2, 3, 4):
        features = features.narrow(axis, 0, reference.shape[axis])
    return features


def run_in_safe_precision(block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Run a block, in float32 if CPU autocast would convolve over one or two voxels."""
    small = min(inputs[-1].shape[2:]) < 2 * MIN_BFLOAT16_SIDE  # a block may halve the grid
    if small and inputs[0].device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return block(*(x.float() for x in inputs))
    return block(*inputs)


def _choose_norm(name: str, filters: Sequence[int]) -> Norm:
    """Choose the norm of the network; the number of groups divides the filters of each layer."""
    norms: dict[str, Norm] = {
        "instance": ("instance", {"affine": True}),
        "group": ("group", {"num_groups": math.gcd(8, *filters), "affine": True}),
        "batch": "batch",
    }
    return norms[name]


def get_network_settings(config: TrainConfig, channels: int, classes: int) -> dict[str, Any]:
    """Return arguments of ``SegmentationNetwork``; ``classes`` includes the background."""
    if config.network.filters is None:
        raise ValueError("the network's filters must be planned first")
    return {
        "channels": channels,
        "classes": classes,
        "filters": list(config.network.filters),
        "norm": config.network.norm,
        "half_resolution": bool(config.network.half_resolution),
        "projection_hidden": config.network.projection_hidden,
        "projection_dim": config.network.projection_dim,
        "aspp": config.network.aspp,
    }


def build_network(config: TrainConfig, channels: int, classes: int) -> SegmentationNetwork:
    """Build the network of a planned run; ``classes`` includes the background."""
    return SegmentationNetwork(**get_network_settings(config, channels, classes))


def flatten_spatial(embeddings: Tensor) -> Tensor:
    """Reshape feature maps ``(B, E, d, h, w)`` to rows ``(B, N, E)``, one per location."""
    return embeddings.flatten(2).transpose(1, 2)


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the teacher towards the student: ``θ_t ← decay θ_t + (1 - decay) θ_s``.

    Buffers are copied.
    """
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average(list(teacher.parameters()), list(student.parameters()), None)
    for teacher_buffer, student_buffer in zip(teacher.buffers(), student.buffers(), strict=True):
        teacher_buffer.copy_(student_buffer)
