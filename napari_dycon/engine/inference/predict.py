"""Sliding-window prediction of masks, uncertainty and disagreement, on the scan's own grid.

The ensemble consists of student and teacher at several test-time scales. Its mean is the
prediction, the entropy of the mean the uncertainty, and the mutual information the disagreement.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine.atlas.pseudo_labels import MAX_ATLASES
from napari_dycon.engine.atlas.segmentation import segment_with_atlases
from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.data.patches import LEFT_RIGHT_AXIS
from napari_dycon.engine.data.preprocessing import prepare_image
from napari_dycon.engine.device import disable_cudnn_benchmark, use_single_thread
from napari_dycon.engine.inference.embedding import FeatureSum
from napari_dycon.engine.inference.progress import (
    PredictionProgress,
    count_passes,
    measure_work,
)
from napari_dycon.engine.inference.slabs import Slab, plan_slabs, resize_slab
from napari_dycon.engine.inference.uncertainty import compute_uncertainty_maps
from napari_dycon.engine.inference.windows import OVERLAP_SIDE, plan_windows, predict_windows
from napari_dycon.engine.losses.probability import upcast
from napari_dycon.engine.memory import get_free_bytes, retry_with_less_memory
from napari_dycon.engine.network import SegmentationNetwork
from napari_dycon.io.volume import Volume

MAX_ATLAS_VOXELS = 2**24  # of a scan for atlas fusion
# Ways to predict a scan, from the fastest to the one with the least memory: side of a window as a
# fraction of the usual one, and whether windows are stitched on the device.
ATTEMPTS = ((1.0, True), (1.0, False), (0.75, False), (0.5, False))
CPU = torch.device("cpu")
TEACHER_INDEX = 1  # index of the first test-time scale that the teacher predicts
MAX_BATCH_VOXELS = 2**22  # of the windows in a batch on a GPU


@dataclass(frozen=True)
class Prediction:
    """Canonical arrays ``(D, H, W)`` of one scan: uint8 mask, float32 maps in [0, 1].

    ``features`` is the embedding of the scan, see ``embedding.py``.
    """

    mask: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.float32]
    disagreement: npt.NDArray[np.float32]
    features: list[float]


def predict_volume(
    model: TrainedModel,
    volume: Volume,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    fast: bool = False,
    exclude_case: str | None = None,
    prepared_image: npt.NDArray[np.float32] | None = None,
    progress: PredictionProgress | None = None,
) -> Prediction:
    """Predict one scan with networks that are already on ``device``.

    If memory does not suffice for the outputs of the whole scan, it is predicted in slabs, without
    atlas fusion.

    Parameters
    ----------
    fast : skip atlas fusion and flipped views: faster, slightly less accurate
    exclude_case : the scan's own case, which is not used as an atlas
    prepared_image : the preprocessed scan (C, D, H, W), if available; then only the volume's grid
        is used
    progress : the work on the scan is reported to it

    Raises
    ------
    MemoryError
        The scan is too large even for slabs.
    """
    image = prepare_image(volume, model.config) if prepared_image is None else prepared_image
    shape, config = volume.shape, model.config
    assert config.batch.patch_size is not None
    slabs = plan_slabs(
        shape,
        image.shape[1:],
        n_classes=len(model.class_values) + 1,
        margin=config.batch.patch_size[0],
        free_bytes=get_free_bytes(CPU),
        max_scale=max(1.0, *config.inference.tta_scales),
    )
    values = np.array([0, *model.class_values], dtype=np.uint8)
    placement = device, dtype
    if len(slabs) > 1:
        return _predict_slabs(model, image, shape, slabs, *placement, fast=fast, progress=progress)

    def predict(maps_device: torch.device) -> Prediction:
        features = FeatureSum()
        members = predict_members(
            model, image, shape, *placement, fast=fast, maps_device=maps_device, features=features,
            on_fraction=None if progress is None else progress.report_fraction,
        )  # fmt: skip
        atlas_probabilities = None
        if not fast:
            with measure_work(progress, "atlases", count_atlases(model)):
                atlas_probabilities = predict_with_atlases(
                    model, image, shape, device, exclude_case=exclude_case,
                    on_fraction=None if progress is None else progress.report_fraction,
                )  # fmt: skip
        passes = count_member_passes(model, fast=fast, shape=image.shape[1:])
        with measure_work(progress, "passes", passes):
            mean, *maps = compute_uncertainty_maps(
                members, atlas_probabilities, config.atlas.weight
            )
        uncertainty, disagreement = (array.cpu().numpy() for array in maps)
        mask = values[mean.argmax(dim=0).cpu().numpy()]
        return Prediction(mask, uncertainty, disagreement, features.to_vector())

    maps_devices = (device, CPU) if device.type == "cuda" else (CPU,)
    return retry_with_less_memory(predict, maps_devices, device)


def _predict_slabs(
    model: TrainedModel,
    image: npt.NDArray[np.float32],
    shape: tuple[int, int, int],
    slabs: Sequence[Slab],
    device: torch.device,
    dtype: torch.dtype,
    *,
    fast: bool,
    progress: PredictionProgress | None = None,
) -> Prediction:
    """Predict a prepared scan ``(C, D, H, W)`` slab by slab, on the grid ``shape``."""
    features = FeatureSum()
    values = np.array([0, *model.class_values], dtype=np.uint8)
    mask = np.zeros(shape, np.uint8)
    maps = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for slab in slabs:
        slab_image = image[:, slab.prepared_start : slab.prepared_stop]
        d, h, w = slab_image.shape[1:]
        outputs = predict_members(
            model, slab_image, (d, h, w), device, dtype, fast=fast, features=features,
            on_fraction=None if progress is None else progress.report_fraction,
        )  # fmt: skip
        members = (resize_slab(output, slab, shape, image.shape[1]) for output in outputs)
        work = count_member_passes(model, fast=fast) / len(slabs)
        with measure_work(progress, "passes", work):
            mean, *slab_maps = compute_uncertainty_maps(members)
        rows = slice(slab.start, slab.stop)
        mask[rows] = values[mean.argmax(dim=0).numpy()]
        for full_map, slab_map in zip(maps, slab_maps, strict=True):
            full_map[rows] = slab_map.numpy()
    return Prediction(mask, *maps, features.to_vector())


def predict_members(
    model: TrainedModel,
    prepared_image: npt.NDArray[np.float32],
    shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    *,
    fast: bool,
    maps_device: torch.device = CPU,
    features: FeatureSum | None = None,
    on_fraction: Callable[[float], None] | None = None,
) -> Iterator[Tensor]:
    """Yield the softmax outputs ``(classes, *shape)`` of the ensemble members.

    Student and teacher alternate over the scales ``inference.tta_scales``: at the end of a run the
    two hardly differ, so that another scale adds more than another network. If enabled and not
    ``fast``, each also predicts the scan flipped.

    Parameters
    ----------
    prepared_image : (C, D, H, W)
    shape : shape of the scan's own grid
    maps_device : device of the outputs
    features : the teacher's features are added to it, once
    on_fraction : called after each batch of windows with the fraction of the work that is done
    """
    image = torch.from_numpy(prepared_image)
    mirrors = (False, True) if model.config.inference.tta_flip_left_right and not fast else (False,)
    scales, done = model.config.inference.tta_scales, 0.0
    total = count_passes(scales, is_mirrored=len(mirrors) > 1)
    for is_mirrored, (number, scale) in itertools.product(mirrors, enumerate(scales)):

        def report(fraction: float, done: float = done, amount: float = scale**3) -> None:
            if on_fraction is not None:
                on_fraction((done + amount * fraction) / total)

        network = (model.student, model.teacher)[number % 2]
        size = [max(round(n * scale), 1) for n in image.shape[1:]]
        view = image if scale == 1.0 else _resize(image, size)
        if is_mirrored:
            view = view.flip(LEFT_RIGHT_AXIS + 1)
        member_features = features if number == TEACHER_INDEX and not is_mirrored else None
        # Maps on the CPU are preferred to smaller windows, which affect normalization layers.
        attempts = ATTEMPTS if maps_device.type == "cpu" else ATTEMPTS[:2]
        member = predict_probabilities(
            network, model, view, device, dtype, member_features, attempts, report
        )
        done += scale**3
        if is_mirrored:
            member = member.flip(LEFT_RIGHT_AXIS + 1)
        has_shape = tuple(member.shape[1:]) == shape
        yield (member if has_shape else _resize(member, shape)).to(maps_device)


def count_member_passes(
    model: TrainedModel, *, fast: bool, shape: Sequence[int] | None = None
) -> float:
    """Return the work of the members of an ensemble on one scan; see ``count_passes``.

    Parameters
    ----------
    shape : shape of the prepared scan, if known, which decides how much windows overlap
    """
    inference, patch = model.config.inference, model.config.batch.patch_size
    is_mirrored = inference.tta_flip_left_right and not fast
    if shape is None:
        return count_passes(inference.tta_scales, is_mirrored=is_mirrored)
    assert patch is not None

    def count_voxels(scale: float, overlap_side: float) -> int:
        size = [max(round(length * scale), 1) for length in shape]
        windows = plan_windows(size, patch, side=model.window_side, overlap_side=overlap_side)
        return math.prod(windows.size) * math.prod(windows.counts)

    computed = sum(count_voxels(scale, model.overlap_side) for scale in inference.tta_scales)
    return computed * (2 if is_mirrored else 1) / count_voxels(1.0, OVERLAP_SIDE)


def count_atlases(model: TrainedModel) -> int:
    """Return how many atlases are registered to each scan."""
    return sum(min(len(group), MAX_ATLASES) for group in model.atlases)


def predict_with_atlases(
    model: TrainedModel,
    prepared_image: npt.NDArray[np.float32],
    shape: tuple[int, int, int],
    device: torch.device,
    *,
    exclude_case: str | None = None,
    on_fraction: Callable[[float], None] | None = None,
) -> Tensor | None:
    """Compute atlas probabilities ``(classes, *shape)`` of a prepared scan; ``None`` without any.

    If a GPU's memory does not suffice, they are computed on the CPU; if the computer's memory does
    not suffice either, the result is ``None``.
    """
    if not model.atlases or prepared_image[0].size > MAX_ATLAS_VOXELS:
        return None
    atlas_groups = [
        [atlas for atlas in group if atlas.id != exclude_case] for group in model.atlases
    ]

    def segment(compute_device: torch.device) -> Tensor | None:
        with use_single_thread(compute_device):
            return segment_with_atlases(
                prepared_image, atlas_groups, len(model.class_values) + 1, compute_device,
                on_fraction,
            )  # fmt: skip

    try:
        probabilities = retry_with_less_memory(segment, dict.fromkeys((device, CPU)), device)
    except MemoryError:
        return None
    has_shape = probabilities is None or tuple(probabilities.shape[1:]) == shape
    return probabilities if probabilities is None or has_shape else _resize(probabilities, shape)


def _resize(array: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(array[None], size=tuple(size), mode="trilinear", align_corners=False)[0]


def _has_multiple_locations(model: TrainedModel, attempt: tuple[float, bool]) -> bool:
    """Check that windows have more than one bottleneck location, which most norms need."""
    assert model.config.batch.patch_size is not None
    longest = int(max(model.config.batch.patch_size) * attempt[0] * model.window_side)
    return model.config.network.norm == "group" or longest > model.config.network.stride


def extract_features(
    model: TrainedModel, image: npt.NDArray[np.float32], device: torch.device, dtype: torch.dtype
) -> list[float]:
    """Compute the embedding of a prepared scan ``(C, D, H, W)`` as in a prediction."""
    features = FeatureSum()
    view = torch.from_numpy(np.array(image, dtype=np.float32))
    scale = model.config.inference.tta_scales[TEACHER_INDEX]
    if scale != 1.0:
        view = _resize(view, [max(round(n * scale), 1) for n in view.shape[1:]])
    predict_probabilities(model.teacher, model, view, device, dtype, features)
    return features.to_vector()


def predict_probabilities(
    network: SegmentationNetwork,
    model: TrainedModel,
    image: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    features: FeatureSum | None = None,
    attempts: Sequence[tuple[float, bool]] = ATTEMPTS,
    on_fraction: Callable[[float], None] | None = None,
) -> Tensor:
    """Compute the softmax output ``(classes, D, H, W)`` of one of a model's networks.

    If memory runs out, it is retried with smaller windows, stitched on the CPU.

    Parameters
    ----------
    image : (C, D, H, W), prepared
    features : the bottleneck features of all windows are added to it
    attempts : ways to predict, as ``ATTEMPTS``
    on_fraction : called after each batch of windows with the fraction of windows that are done
    """
    patch = model.config.batch.patch_size
    assert patch is not None

    width = image.shape[3]
    if (
        model.config.network.norm == "instance"
        and max(image.shape[1:]) <= model.config.network.stride
    ):
        # Instance norm would turn a single location at the bottleneck into zeros.
        pad = (0, model.config.network.stride + 1 - width, 0, 0, 0, 0)
        image = F.pad(image[None], pad, mode="replicate")[0]
    attempts = [a for a in attempts if _has_multiple_locations(model, a)] or attempts[:1]
    attempt_features = FeatureSum()
    n_windows, n_done = 1, 0

    def compute(x: Tensor) -> Tensor:
        nonlocal n_done
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits, bottleneck = network.forward_with_bottleneck(x)
        probabilities = F.softmax(upcast(logits) / model.temperature, dim=1)
        if features is not None:
            attempt_features.add(upcast(bottleneck), 1.0 - probabilities[:, 0])
        n_done += len(x)
        if on_fraction is not None:
            on_fraction(n_done / n_windows)
        return probabilities

    def predict(attempt: tuple[float, bool]) -> Tensor:
        nonlocal attempt_features, n_windows, n_done
        attempt_features = FeatureSum()
        side_fraction, on_device = attempt
        windows = plan_windows(
            image.shape[1:],
            patch,
            side=side_fraction * model.window_side,
            overlap_side=model.overlap_side,
        )
        n_windows, n_done = math.prod(windows.counts), 0
        batch_size = 1 if device.type == "cpu" else MAX_BATCH_VOXELS // math.prod(windows.size)
        return predict_windows(
            image,
            compute,
            windows,
            device=device,
            stitch_device=device if on_device else torch.device("cpu"),
            batch_size=min(max(batch_size, 1), 8),
        )

    was_training = network.training
    try:
        network.eval()
        with disable_cudnn_benchmark():
            stitched = retry_with_less_memory(predict, attempts, device)
    finally:
        network.train(was_training)
    if features is not None:
        features.merge(attempt_features)
    return stitched[..., :width]
