"""Scans of a project or of a folder predicted one after the other, and their files written.

The next scan is read and the one before is written while one is predicted (``pipeline.py``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from napari_dycon.core.atomic import make_folder, replacing_together
from napari_dycon.engine.checkpoints.checkpoint import Model
from napari_dycon.engine.data.preprocessing import (
    cache_path,
    grid_shape,
    prepare_image,
    read_image_array,
)
from napari_dycon.engine.evaluation import foreground_margin
from napari_dycon.engine.inference.pipeline import Computing, Failed, Written, run_pipeline
from napari_dycon.engine.inference.predict import Prediction, describe_scan, predict_volume
from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.engine.memory import free_bytes
from napari_dycon.errors import ProjectError, UserError
from napari_dycon.io import write_map, write_mask
from napari_dycon.io.volume import Volume
from napari_dycon.project.importing.discovery import Scan, read_scan
from napari_dycon.project.runs.events import Event

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

PREPARING_COPIES = 3  # float32 arrays of a scan at once while it is resampled and normalized
AHEAD_COPIES = 8  # prepared scans that memory has to have room for, to read the next one ahead

OnError = Callable[[str, Exception], None]
T = TypeVar("T")


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the network sees it ``(C, D, H, W)``, and its own grid without the voxels."""

    grid: Volume
    image: npt.NDArray[np.float32]


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
    on_labeled_error: OnError | None = None,
) -> Iterator[Event]:
    """Predict cases of a project into ``predictions/RUN``; yields one event a case.

    What is known of each scan is written beside it, and also for labeled scans, to which those to
    label next are compared.

    Parameters
    ----------
    progress : counts the cases, and is told in an event before each
    on_error : given a case that cannot be predicted; the others go on. It raises what concerns
        them all. By default every error is raised
    on_labeled_error : the same, of labeled scans that are only looked at
    """

    def read(case: str) -> PreparedScan:
        return prepare_scan(project.read_image(case), model, case)

    def compute(case: str, scan: PreparedScan) -> Prediction:
        return predict_volume(model, scan.grid, device, dtype, but=case, prepared=scan.image)

    def write(case: str, grid: Volume, result: Prediction) -> None:
        project.write_prediction(
            run_id, case, result.mask, result.uncertainty, result.disagreement, reference=grid
        )
        score = foreground_margin.case_score(result.mask, result.uncertainty, grid.spacing_mm)
        project.save_case_metadata(run_id, case, {"score": score, "features": result.features})

    yield from _predict_scans(
        cases, read, compute, write, name=str, progress=progress, on_error=on_error
    )
    _describe_labeled(project, run_id, model, device, dtype, on_labeled_error or on_error)


def _describe_labeled(
    project: Project,
    run_id: str,
    model: Model,
    device: torch.device,
    dtype: torch.dtype,
    on_error: OnError | None,
) -> None:
    """Write the features of labeled scans down, of which that was not done."""
    known = {
        case.id: project.load_case_metadata(run_id, case.id)
        for case in project.labeled_cases("train")
    }

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
        project.save_case_metadata(run_id, case, {**known[case], "features": features})

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
