"""Sliding-window prediction: masks with uncertainty and disagreement, on the scan's own grid.

Student and teacher each see the scan, in two sizes; their mean is the prediction, its entropy the
uncertainty, and how far they part the disagreement.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine import band
from napari_dycon.engine.atlas import vote_on
from napari_dycon.engine.checkpoint import Model
from napari_dycon.engine.device import varying_shapes
from napari_dycon.engine.events import Event
from napari_dycon.engine.features import scan_features
from napari_dycon.engine.losses import at_least_float32
from napari_dycon.engine.memory import with_less_memory
from napari_dycon.engine.network import SegmentationNetwork
from napari_dycon.engine.patches import LEFT_RIGHT
from napari_dycon.engine.preprocess import prepare_image
from napari_dycon.engine.uncertainty import uncertainty_maps
from napari_dycon.engine.windows import MAX_WINDOW_SIDE, plan_windows, predict_windows
from napari_dycon.project.formats import write_map, write_mask
from napari_dycon.project.scans import Scan, read_scan
from napari_dycon.project.volume import Volume

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

MOST_VOTED = 2**24  # voxels of a scan that labelled ones are deformed into
# Ways to predict a scan, from the fastest to the one that takes the least memory: the longest side
# of a window, in sides of a patch, and whether windows are stitched on the device.
ATTEMPTS = ((MAX_WINDOW_SIDE, True), (MAX_WINDOW_SIDE, False), (1.0, False), (0.5, False))
CPU = torch.device("cpu")
BATCH_VOXELS = 2**22  # of the windows that a GPU computes at once


@dataclass(frozen=True)
class Prediction:
    """Canonical arrays ``(D, H, W)`` of one scan: uint8 mask, float32 maps in [0, 1]."""

    mask: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.float32]
    disagreement: npt.NDArray[np.float32]


def predict_volume(
    model: Model,
    volume: Volume,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    quick: bool = False,
    but: str | None = None,
    prepared: npt.NDArray[np.float32] | None = None,
) -> Prediction:
    """Predict one scan with networks that are already on ``device``.

    ``quick`` takes no voters and no mirrored views: faster, a little less accurate. ``but`` is the
    scan's own case, whose label is not asked. ``prepared`` is the scan as the network sees it,
    where that is known: then only the volume's grid is used.
    """
    image = prepare_image(volume, model.config) if prepared is None else prepared
    values = np.array([0, *model.class_values], dtype=np.uint8)

    def predict(maps_device: torch.device) -> Prediction:
        members = members_on_grid(
            model, image, volume.shape, device, dtype, quick=quick, maps_device=maps_device
        )
        votes = None if quick else votes_on_grid(model, image, volume.shape, device, but=but)
        mean, *maps = uncertainty_maps(members, votes, model.config.atlas_weight)
        uncertainty, disagreement = (array.cpu().numpy() for array in maps)
        return Prediction(values[mean.argmax(dim=0).cpu().numpy()], uncertainty, disagreement)

    places = (device, CPU) if device.type == "cuda" else (CPU,)
    return with_less_memory(predict, places, device)


def members_on_grid(
    model: Model,
    prepared: npt.NDArray[np.float32],
    shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    *,
    quick: bool,
    maps_device: torch.device = CPU,
) -> Iterator[Tensor]:
    """Softmax outputs ``(classes, *shape)`` of all members, one by one.

    Student and teacher take turns over the sizes ``test_scales``: at the end of a run the two
    hardly differ, so that another size tells more than another network. When asked for and not
    ``quick``, each also sees the scan mirrored.

    Parameters
    ----------
    prepared : (C, D, H, W)
    shape : of the scan's own grid
    maps_device : where the outputs are given
    """
    image = torch.from_numpy(prepared)
    mirrors = (False, True) if model.config.test_mirror and not quick else (False,)
    for mirrored, (number, scale) in itertools.product(
        mirrors, enumerate(model.config.test_scales)
    ):
        network = (model.student, model.teacher)[number % 2]
        size = [max(round(n * scale), 1) for n in image.shape[1:]]
        view = image if scale == 1.0 else _resized(image, size)
        if mirrored:
            view = view.flip(LEFT_RIGHT + 1)
        member = predict_probabilities(network, model, view, device, dtype)
        if mirrored:
            member = member.flip(LEFT_RIGHT + 1)
        fits = tuple(member.shape[1:]) == shape
        yield (member if fits else _resized(member, shape)).to(maps_device)


def votes_on_grid(
    model: Model,
    prepared: npt.NDArray[np.float32],
    shape: tuple[int, int, int],
    device: torch.device,
    *,
    but: str | None = None,
) -> Tensor | None:
    """Shares ``(classes, *shape)`` of what the model's voters say of a prepared scan, if any.

    Where a GPU's memory does not suffice for them the CPU computes them, and where that of the
    computer does not, networks predict alone.
    """
    if not model.voters or prepared[0].size > MOST_VOTED:
        return None
    voters = [[voter for voter in group if voter.id != but] for group in model.voters]

    def vote(where: torch.device) -> Tensor | None:
        return vote_on(prepared, voters, len(model.class_values) + 1, where)

    try:
        votes = with_less_memory(vote, dict.fromkeys((device, CPU)), device)
    except MemoryError:
        return None
    fits = votes is None or tuple(votes.shape[1:]) == shape
    return votes if votes is None or fits else _resized(votes, shape)


def _resized(array: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(array[None], size=tuple(size), mode="trilinear", align_corners=False)[0]


def predict_probabilities(
    network: SegmentationNetwork,
    model: Model,
    image: Tensor,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Softmax output ``(classes, D, H, W)`` of one of a model's networks.

    Where memory runs out, it is tried again in smaller windows, stitched on the CPU.

    Parameters
    ----------
    image : (C, D, H, W), prepared
    """
    patch = model.config.patch
    assert patch is not None

    def compute(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = at_least_float32(network(x).logits)
        return F.softmax(logits / model.temperature, dim=1)

    def predict(attempt: tuple[float, bool]) -> Tensor:
        side, on_device = attempt
        windows = plan_windows(image.shape[1:], patch, max_side=side)
        at_once = 1 if device.type == "cpu" else BATCH_VOXELS // math.prod(windows.size)
        return predict_windows(
            image,
            compute,
            windows,
            device=device,
            stitch_device=device if on_device else torch.device("cpu"),
            batch=min(max(at_once, 1), 8),
        )

    training = network.training
    try:
        network.eval()
        with varying_shapes():
            return with_less_memory(predict, ATTEMPTS, device)
    finally:
        network.train(training)


def predict_cases(
    project: Project,
    run_id: str,
    model: Model,
    cases: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[Event]:
    """Predict cases of a project into ``predictions/RUN``; yields one event a case.

    What is known of each scan is written beside it, and also for labelled scans, to which those to
    label next are compared.
    """
    for number, case in enumerate(cases, start=1):
        volume = project.read_image(case)
        check_channels(volume, model, case)
        result = predict_volume(model, volume, device, dtype, but=case)
        project.write_prediction(run_id, case, result.mask, result.uncertainty, result.disagreement)
        score = band.case_score(result.mask, result.uncertainty, volume.spacing_mm)
        features = _features(model, volume, device, dtype)
        project.write_facts(run_id, case, {"score": score, "features": features})
        yield _event(case, number, len(cases), result, volume)
    for known in project.labelled("train"):
        if not project.read_facts(run_id, known.id).get("features"):
            features = _features(model, project.read_image(known.id), device, dtype)
            project.write_facts(run_id, known.id, {"features": features})


def _features(
    model: Model, volume: Volume, device: torch.device, dtype: torch.dtype
) -> list[float]:
    return scan_features(
        model, torch.from_numpy(prepare_image(volume, model.config)), device, dtype
    )


def predict_files(
    scans: Sequence[Scan],
    out: Path,
    model: Model,
    device: torch.device,
    dtype: torch.dtype,
    *,
    resample: bool = False,
) -> Iterator[Event]:
    """Predict scans that belong to no project: ``NAME.nii.gz``, ``NAME_uncertainty.nii.gz``, ..."""
    out.mkdir(parents=True, exist_ok=True)
    for number, scan in enumerate(scans, start=1):
        name = scan.name
        volume = read_scan(scan.images, name, resample=resample)
        check_channels(volume, model, name)
        result = predict_volume(model, volume, device, dtype)
        write_mask(result.mask, like=volume, path=out / f"{name}.nii.gz")
        write_map(result.uncertainty, like=volume, path=out / f"{name}_uncertainty.nii.gz")
        write_map(result.disagreement, like=volume, path=out / f"{name}_disagreement.nii.gz")
        yield _event(name, number, len(scans), result, volume)


def check_files(
    scans: Sequence[Scan],
    model: Model,
    *,
    resample: bool = False,
    note: Callable[[str], None] | None = None,
) -> None:
    """Read every scan once, so that a bad one is told before anything is written.

    ``note`` is told what had to be decided to read a scan.
    """
    for scan in scans:
        volume = read_scan(scan.images, scan.name, resample=resample)
        check_channels(volume, model, scan.name)
        if note:
            for text in volume.notes:
                note(text)


def check_channels(volume: Volume, model: Model, name: str) -> None:
    """Refuse a scan that has another number of channels than the network was trained on."""
    if volume.channels != model.channels:
        from napari_dycon.errors import UserError

        raise UserError(
            f"{name} has {volume.channels} channel(s), but this run was trained on "
            f"{model.channels}. Choose scans with the same channels."
        )


def _event(
    name: str, number: int, total: int, result: Prediction, volume: Volume
) -> dict[str, Any]:
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000.0
    values, counts = np.unique(result.mask, return_counts=True)
    volumes = {int(v): round(float(n) * voxel_ml, 4) for v, n in zip(values, counts, strict=True)}
    volumes.pop(0, None)
    return {
        "event": "predicted",
        "case": name,
        "done": number,
        "total": total,
        "volume_ml": volumes,
        "mean_uncertainty": round(float(result.uncertainty.mean()), 6),
    }
