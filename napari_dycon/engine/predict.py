"""Sliding-window prediction: masks with uncertainty and disagreement, on the scan's own grid.

Student and teacher each see the scan, in two sizes; their mean is the prediction, its entropy the
uncertainty, and how far they part the disagreement.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dycon.engine import band
from napari_dycon.engine.atlas import vote_on
from napari_dycon.engine.checkpoint import Model
from napari_dycon.engine.device import one_thread, varying_shapes
from napari_dycon.engine.events import Event
from napari_dycon.engine.features import FeatureSum
from napari_dycon.engine.losses import at_least_float32
from napari_dycon.engine.memory import free_bytes, with_less_memory
from napari_dycon.engine.network import SegmentationNetwork
from napari_dycon.engine.patches import LEFT_RIGHT
from napari_dycon.engine.pipeline import Computing, Failed, Written, run_pipeline
from napari_dycon.engine.preprocess import cache_path, grid_shape, prepare_image, read_image_array
from napari_dycon.engine.progress import PredictionProgress
from napari_dycon.engine.slabs import Slab, plan_slabs, resize_slab
from napari_dycon.engine.uncertainty import uncertainty_maps
from napari_dycon.engine.windows import MAX_WINDOW_SIDE, plan_windows, predict_windows
from napari_dycon.errors import ProjectError, UserError
from napari_dycon.project.atomic import make_folder, replacing_together
from napari_dycon.project.formats import write_map, write_mask
from napari_dycon.project.scans import Scan, read_scan
from napari_dycon.project.volume import Volume

if TYPE_CHECKING:
    from napari_dycon.engine.network import SegmentationNetwork
    from napari_dycon.project.store import Project

MOST_VOTED = 2**24  # voxels of a scan that labelled ones are deformed into
# Ways to predict a scan, from the fastest to the one that takes the least memory: the longest side
# of a window, in sides of a patch, and whether windows are stitched on the device.
ATTEMPTS = ((MAX_WINDOW_SIDE, True), (MAX_WINDOW_SIDE, False), (1.0, False), (0.5, False))
CPU = torch.device("cpu")
TEACHER = 1  # of the sizes at prediction, the first that the teacher sees
BATCH_VOXELS = 2**22  # of the windows that a GPU computes at once
PREPARING_COPIES = 3  # float32 arrays of a scan at once while it is resampled and normalised
AHEAD_COPIES = 8  # prepared scans that memory has to have room for, to read the next one ahead

OnError = Callable[[str, Exception], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """Canonical arrays ``(D, H, W)`` of one scan: uint8 mask, float32 maps in [0, 1].

    ``features`` tell what the scan looks like to the network, see ``features.py``.
    """

    mask: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.float32]
    disagreement: npt.NDArray[np.float32]
    features: list[float]


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the network sees it ``(C, D, H, W)``, and its own grid without the voxels."""

    grid: Volume
    image: npt.NDArray[np.float32]


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

    Where memory does not suffice for the outputs of the whole scan, it is predicted slab by slab,
    by the networks alone.

    ``quick`` takes no voters and no mirrored views: faster, a little less accurate. ``but`` is the
    scan's own case, whose label is not asked. ``prepared`` is the scan as the network sees it,
    where that is known: then only the volume's grid is used.

    Raises
    ------
    MemoryError
        The scan is too large even for that.
    """
    image = prepare_image(volume, model.config) if prepared is None else prepared
    shape, config = volume.shape, model.config
    assert config.patch is not None
    slabs = plan_slabs(
        shape,
        image.shape[1:],
        classes=len(model.class_values) + 1,
        margin=config.patch[0],
        free=free_bytes(CPU),
        scale=max(1.0, *config.test_scales),
    )
    values = np.array([0, *model.class_values], dtype=np.uint8)
    how = device, dtype
    if len(slabs) > 1:
        return _predict_slabs(model, image, shape, slabs, *how, quick=quick)

    def predict(maps_device: torch.device) -> Prediction:
        features = FeatureSum()
        members = members_on_grid(
            model, image, shape, *how, quick=quick, maps_device=maps_device, features=features
        )
        votes = None if quick else votes_on_grid(model, image, shape, device, but=but)
        mean, *maps = uncertainty_maps(members, votes, config.atlas_weight)
        uncertainty, disagreement = (array.cpu().numpy() for array in maps)
        mask = values[mean.argmax(dim=0).cpu().numpy()]
        return Prediction(mask, uncertainty, disagreement, features.to_vector())

    places = (device, CPU) if device.type == "cuda" else (CPU,)
    return with_less_memory(predict, places, device)


def _predict_slabs(
    model: Model,
    image: npt.NDArray[np.float32],
    shape: tuple[int, int, int],
    slabs: Sequence[Slab],
    device: torch.device,
    dtype: torch.dtype,
    *,
    quick: bool,
) -> Prediction:
    """Predict a prepared scan ``(C, D, H, W)`` slab by slab, on the grid ``shape``."""
    features = FeatureSum()
    values = np.array([0, *model.class_values], dtype=np.uint8)
    mask = np.zeros(shape, np.uint8)
    maps = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for slab in slabs:
        part = image[:, slab.first : slab.last]
        d, h, w = part.shape[1:]
        outputs = members_on_grid(
            model, part, (d, h, w), device, dtype, quick=quick, features=features
        )
        members = (resize_slab(output, slab, shape, image.shape[1]) for output in outputs)
        mean, *found = uncertainty_maps(members)
        rows = slice(slab.start, slab.stop)
        mask[rows] = values[mean.argmax(dim=0).numpy()]
        for one, rows_of_one in zip(maps, found, strict=True):
            one[rows] = rows_of_one.numpy()
    return Prediction(mask, *maps, features.to_vector())


def members_on_grid(
    model: Model,
    prepared: npt.NDArray[np.float32],
    shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    *,
    quick: bool,
    maps_device: torch.device = CPU,
    features: FeatureSum | None = None,
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
    features : given what the teacher sees, once
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
        found = features if number == TEACHER and not mirrored else None
        member = predict_probabilities(network, model, view, device, dtype, found)
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
        with one_thread(where):
            return vote_on(prepared, voters, len(model.class_values) + 1, where)

    try:
        votes = with_less_memory(vote, dict.fromkeys((device, CPU)), device)
    except MemoryError:
        return None
    fits = votes is None or tuple(votes.shape[1:]) == shape
    return votes if votes is None or fits else _resized(votes, shape)


def _resized(array: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(array[None], size=tuple(size), mode="trilinear", align_corners=False)[0]


def describe_scan(
    model: Model, image: npt.NDArray[np.float32], device: torch.device, dtype: torch.dtype
) -> list[float]:
    """Features of a prepared scan ``(C, D, H, W)`` as a prediction has them (``features.py``)."""
    features = FeatureSum()
    view = torch.from_numpy(np.array(image, dtype=np.float32))
    scale = model.config.test_scales[TEACHER]
    if scale != 1.0:
        view = _resized(view, [max(round(n * scale), 1) for n in view.shape[1:]])
    predict_probabilities(model.teacher, model, view, device, dtype, features)
    return features.to_vector()


def predict_probabilities(
    network: SegmentationNetwork,
    model: Model,
    image: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    features: FeatureSum | None = None,
) -> Tensor:
    """Softmax output ``(classes, D, H, W)`` of one of a model's networks.

    Where memory runs out, it is tried again in smaller windows, stitched on the CPU.

    Parameters
    ----------
    image : (C, D, H, W), prepared
    features : given what the network's bottleneck holds in all windows
    """
    patch = model.config.patch
    assert patch is not None

    width = image.shape[3]
    if model.config.norm == "instance" and max(image.shape[1:]) <= model.config.stride:
        # Of a single cell at the bottleneck instance norm would leave nothing.
        pad = (0, model.config.stride + 1 - width, 0, 0, 0, 0)
        image = F.pad(image[None], pad, mode="replicate")[0]
    attempted = FeatureSum()

    def compute(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits, bottleneck = network.describe(x)
        probabilities = F.softmax(at_least_float32(logits) / model.temperature, dim=1)
        if features is not None:
            attempted.add(at_least_float32(bottleneck), 1.0 - probabilities[:, 0])
        return probabilities

    def predict(attempt: tuple[float, bool]) -> Tensor:
        nonlocal attempted
        attempted = FeatureSum()
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
            stitched = with_less_memory(predict, ATTEMPTS, device)
    finally:
        network.train(training)
    if features is not None:
        features.merge(attempted)
    return stitched[..., :width]


def predict_cases(
    project: Project,
    run_id: str,
    model: Model,
    cases: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    *,
    progress: PredictionProgress | None = None,
    on_error: OnError | None = None,
    on_labelled_error: OnError | None = None,
) -> Iterator[Event]:
    """Predict cases of a project into ``predictions/RUN``; yields one event a case.

    What is known of each scan is written beside it, and also for labelled scans, to which those to
    label next are compared.

    Parameters
    ----------
    progress : counts the cases, and is told in an event before each
    on_error : given a case that cannot be predicted; the others go on. It raises what concerns
        them all. By default every error is raised
    on_labelled_error : the same, of labelled scans that are only looked at
    """

    def read(case: str) -> PreparedScan:
        return prepare_scan(project.read_image(case), model, case)

    def compute(case: str, scan: PreparedScan) -> Prediction:
        return predict_volume(model, scan.grid, device, dtype, but=case, prepared=scan.image)

    def write(case: str, grid: Volume, result: Prediction) -> None:
        project.write_prediction(
            run_id, case, result.mask, result.uncertainty, result.disagreement, like=grid
        )
        score = band.case_score(result.mask, result.uncertainty, grid.spacing_mm)
        project.write_facts(run_id, case, {"score": score, "features": result.features})

    yield from _predict_scans(
        cases, read, compute, write, name=str, progress=progress, on_error=on_error
    )
    _describe_labelled(project, run_id, model, device, dtype, on_labelled_error or on_error)


def _describe_labelled(
    project: Project,
    run_id: str,
    model: Model,
    device: torch.device,
    dtype: torch.dtype,
    on_error: OnError | None,
) -> None:
    """Write the features of labelled scans down, of which that was not done."""
    known = {case.id: project.read_facts(run_id, case.id) for case in project.labelled("train")}

    def read(case: str) -> npt.NDArray[np.float32]:
        with contextlib.suppress(ProjectError, OSError):  # there is none, or a damaged one
            path = cache_path(project.cache_folder, case, project.image_paths(case), model.config)
            cached = read_image_array(path, mapped=False)
            if len(cached) == model.channels:
                return cached
        return prepare_scan(project.read_image(case), model, case).image

    def compute(_: str, image: npt.NDArray[np.float32]) -> list[float]:
        return describe_scan(model, image, device, dtype)

    def write(case: str, features: list[float]) -> None:
        project.write_facts(run_id, case, {**known[case], "features": features})

    missing = [case for case, facts in known.items() if not facts.get("features")]
    for step in run_pipeline(missing, read, compute, write, can_read_ahead=_has_room_ahead):
        if isinstance(step, Failed):
            _raise_or_tell(step.item, step.error, on_error)


def predict_files(
    scans: Sequence[Scan],
    out: Path,
    model: Model,
    device: torch.device,
    dtype: torch.dtype,
    *,
    resample: bool = False,
    note: Callable[[str], None] | None = None,
    progress: PredictionProgress | None = None,
    on_error: OnError | None = None,
) -> Iterator[Event]:
    """Predict scans that belong to no project: ``NAME.nii.gz``, ``NAME_uncertainty.nii.gz``, ...

    The folder is made with the first prediction.

    Parameters
    ----------
    note : told what had to be decided to read a scan
    progress, on_error : as in ``predict_cases``
    """

    def read(scan: Scan) -> PreparedScan:
        return prepare_scan(read_scan(scan.images, scan.name, resample=resample), model, scan.name)

    def compute(_: Scan, loaded: PreparedScan) -> Prediction:
        for text in loaded.grid.notes if note else ():
            assert note is not None
            note(text)
        return predict_volume(model, loaded.grid, device, dtype, prepared=loaded.image)

    def write(scan: Scan, grid: Volume, result: Prediction) -> None:
        make_folder(out)
        kinds = ("_uncertainty", "_disagreement", "")  # the mask last: its maps are there then
        with replacing_together([out / f"{scan.name}{kind}.nii.gz" for kind in kinds]) as files:
            write_map(result.uncertainty, like=grid, path=files[0])
            write_map(result.disagreement, like=grid, path=files[1])
            write_mask(result.mask, like=grid, path=files[2])

    return _predict_scans(
        scans, read, compute, write, name=lambda scan: scan.name, progress=progress,
        on_error=on_error,
    )  # fmt: skip


def prepare_scan(volume: Volume, model: Model, name: str) -> PreparedScan:
    """Prepare a scan for the network of a run, and let go of its voxels.

    Raises
    ------
    UserError
        It has another number of channels than the network was trained on.
    MemoryError
        It is too large to be prepared.
    """
    check_channels(volume, model, name)
    assert model.config.spacing is not None
    shape = grid_shape(volume.shape, volume.spacing_mm, model.config.spacing)
    free = free_bytes(torch.device("cpu"))
    if free is not None and 4 * PREPARING_COPIES * volume.channels * math.prod(shape) > free:
        raise MemoryError("out of memory: a scan does not fit")
    return PreparedScan(volume.without_voxels(), prepare_image(volume, model.config))


def _predict_scans(
    items: Sequence[T],
    read: Callable[[T], PreparedScan],
    compute: Callable[[T, PreparedScan], Prediction],
    write: Callable[[T, Volume, Prediction], None],
    *,
    name: Callable[[T], str],
    progress: PredictionProgress | None,
    on_error: OnError | None,
) -> Iterator[Event]:
    """Predict scans while the next one is read and the one before is written."""

    told = progress is not None
    progress = progress or PredictionProgress(len(items))

    def predict(item: T, scan: PreparedScan) -> tuple[Volume, Prediction]:
        try:
            return scan.grid, compute(item, scan)
        finally:
            progress.finish()

    steps = run_pipeline(
        items,
        read,
        predict,
        lambda item, found: write(item, *found),
        can_read_ahead=lambda scan: _has_room_ahead(scan.image),
    )
    number = 0
    with contextlib.closing(steps):
        for step in steps:
            if isinstance(step, Computing):
                if told:
                    yield progress.start(name(step.item))
                continue
            number += 1
            if isinstance(step, Written):
                grid, result = step.result
                yield _event(name(step.item), number, len(items), result, grid)
            else:
                if step.stage == "read":
                    progress.finish()
                _raise_or_tell(name(step.item), step.error, on_error)


def _has_room_ahead(image: npt.NDArray[np.float32]) -> bool:
    """Whether memory has room for another scan like this one, beside the prediction of it."""
    free = free_bytes(torch.device("cpu"))
    return free is None or AHEAD_COPIES * image.nbytes < free


def _raise_or_tell(case: str, error: Exception, on_error: OnError | None) -> None:
    if on_error is None:
        raise error
    on_error(case, error)


def check_channels(volume: Volume, model: Model, name: str) -> None:
    """Refuse a scan that has another number of channels than the network was trained on."""
    if volume.channels != model.channels:
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
