"""Prediction of several scans of a project or a folder, and writing of their files.

While a scan is predicted, the next one is read and the previous one is written (``pipeline.py``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from napari_dycon.core.atomic import atomic_write_many, ensure_dir, write_json
from napari_dycon.core.wording import format_count
from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.data.preprocessing import (
    cache_path,
    compute_grid_shape,
    prepare_image,
    read_image_array,
)
from napari_dycon.engine.evaluation import foreground_margin
from napari_dycon.engine.inference.pipeline import (
    ComputingItem,
    FailedItem,
    WrittenItem,
    run_pipeline,
)
from napari_dycon.engine.inference.predict import (
    TEACHER_INDEX,
    Prediction,
    count_atlases,
    count_member_passes,
    extract_features,
    predict_volume,
)
from napari_dycon.engine.inference.progress import PredictionProgress, measure_work
from napari_dycon.engine.memory import get_free_bytes
from napari_dycon.errors import ProjectError, UserError
from napari_dycon.io import write_map, write_mask
from napari_dycon.io.volume import Volume
from napari_dycon.project.importing.discovery import Scan, read_scan
from napari_dycon.project.prediction_origin import KEY, PredictionOrigin, get_record_path
from napari_dycon.project.prediction_store import PredictionMetadata
from napari_dycon.project.runs.events import Event, PredictedEvent

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

PREPARATION_COPIES = 3  # float32 arrays of a scan at once while it is resampled and normalized
READ_AHEAD_COPIES = 8  # free memory required to read the next scan ahead, in prepared scans

OnError = Callable[[str, Exception], None]
T = TypeVar("T")


@dataclass(frozen=True)
class PreparedScan:
    """A preprocessed scan ``(C, D, H, W)``, and its own grid without the voxels."""

    grid: Volume
    image: npt.NDArray[np.float32]


def predict_cases(
    project: Project,
    run_id: str,
    model: TrainedModel,
    cases: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    *,
    progress: PredictionProgress | None = None,
    on_error: OnError | None = None,
    on_labeled_error: OnError | None = None,
    origin: PredictionOrigin | None = None,
) -> Iterator[Event]:
    """Predict cases of a project into ``predictions/RUN``; yields one event per case.

    Metadata of each scan is written as well, also for labeled scans, with which candidates for
    annotation are compared.

    Parameters
    ----------
    progress : counts the cases; an event is yielded before each
    on_error : called with a case that cannot be predicted, after which the others continue; it may
        raise errors that affect all cases. By default every error is raised
    on_labeled_error : the same for labeled scans, of which only features are computed
    origin : is recorded with each prediction
    """

    def read(case: str) -> PreparedScan:
        return prepare_scan(project.read_image(case), model, case)

    def compute(case: str, scan: PreparedScan) -> Prediction:
        return predict_volume(
            model, scan.grid, device, dtype, exclude_case=case, prepared_image=scan.image,
            progress=progress,
        )  # fmt: skip

    def write(case: str, grid: Volume, result: Prediction) -> None:
        score = foreground_margin.mean_foreground_uncertainty(
            result.mask, result.uncertainty, grid.spacing_mm
        )
        metadata = PredictionMetadata(score=score, features=result.features)
        if origin is not None:
            metadata = metadata.model_copy(update={"origin": origin.now()})
        project.predictions.write(
            run_id, case, result.mask, result.uncertainty, result.disagreement, reference=grid,
            metadata=metadata,
        )  # fmt: skip

    if progress is not None:
        plan_predictions(progress, model)
        plan_comparison(progress, project, run_id, model, cases)
    yield from _predict_scans(
        cases, read, compute, write, get_name=str, progress=progress, on_error=on_error
    )
    # Cases that were predicted just now may be labeled ones.
    labeled = _find_cases_without_features(project, run_id)
    _write_labeled_features(
        project, run_id, labeled, model, device, dtype, on_labeled_error or on_error, progress
    )


def plan_predictions(progress: PredictionProgress, model: TrainedModel) -> None:
    """Tell the progress how much work each scan is."""
    passes = count_member_passes(model, fast=False)
    progress.plan("predicting", passes=passes, atlases=count_atlases(model))


def plan_comparison(
    progress: PredictionProgress,
    project: Project,
    run_id: str,
    model: TrainedModel,
    cases: Sequence[str],
) -> None:
    """Tell the progress of the labeled scans whose features are computed at the end.

    Parameters
    ----------
    cases : cases that are predicted before, which gives their features
    """
    n_compared = len(_find_cases_without_features(project, run_id).keys() - set(cases))
    progress.plan("comparing", passes=model.config.inference.tta_scales[TEACHER_INDEX] ** 3)
    progress.set_total(n_compared, "comparing")


def _find_cases_without_features(project: Project, run_id: str) -> dict[str, PredictionMetadata]:
    """Return the labeled cases whose features are missing, with the metadata they have."""
    known = {
        case.id: project.predictions.read_metadata(run_id, case.id)
        for case in project.labeled_cases("train")
    }
    return {case: metadata for case, metadata in known.items() if not metadata.features}


def _write_labeled_features(
    project: Project,
    run_id: str,
    case_metadata: Mapping[str, PredictionMetadata],
    model: TrainedModel,
    device: torch.device,
    dtype: torch.dtype,
    on_error: OnError | None,
    progress: PredictionProgress | None,
) -> None:
    """Compute and write missing features of labeled scans."""
    if progress is not None:
        progress.set_total(len(case_metadata), "comparing")

    def read(case: str) -> npt.NDArray[np.float32]:
        with contextlib.suppress(ProjectError, OSError):  # missing or damaged
            path = cache_path(project.cache_folder, case, project.image_paths(case), model.config)
            cached = read_image_array(path, mapped=False)
            if len(cached) == model.channels:
                return cached
        return prepare_scan(project.read_image(case), model, case).image

    def compute(_: str, image: npt.NDArray[np.float32]) -> list[float]:
        with measure_work(
            progress, "passes", model.config.inference.tta_scales[TEACHER_INDEX] ** 3
        ):
            features = extract_features(model, image, device, dtype)
        if progress is not None:
            progress.finish()
        return features

    def write(case: str, features: list[float]) -> None:
        metadata = case_metadata[case].model_copy(update={"features": features})
        project.predictions.write_metadata(run_id, case, metadata)

    cases = list(case_metadata)
    for step in run_pipeline(cases, read, compute, write, can_read_ahead=_has_memory_for_next):
        if progress is not None and isinstance(step, ComputingItem):
            progress.start(step.item, "comparing")
        if isinstance(step, FailedItem):
            _raise_or_report(step.item, step.error, on_error)


def predict_files(
    scans: Sequence[Scan],
    out_folder: Path,
    model: TrainedModel,
    device: torch.device,
    dtype: torch.dtype,
    *,
    resample: bool = False,
    on_note: Callable[[str], None] | None = None,
    progress: PredictionProgress | None = None,
    on_error: OnError | None = None,
    origin: PredictionOrigin | None = None,
) -> Iterator[Event]:
    """Predict scans that belong to no project: ``NAME.nii.gz``, ``NAME_uncertainty.nii.gz``, ...

    The folder is created with the first prediction.

    Parameters
    ----------
    on_note : called with notes on how a scan was read
    progress, on_error : as in ``predict_cases``
    origin : is written to ``NAME.json`` beside each mask
    """

    def read(scan: Scan) -> PreparedScan:
        return prepare_scan(read_scan(scan.images, scan.name, resample=resample), model, scan.name)

    def compute(_: Scan, loaded: PreparedScan) -> Prediction:
        for text in loaded.grid.notes if on_note else ():
            assert on_note is not None
            on_note(text)
        return predict_volume(
            model, loaded.grid, device, dtype, prepared_image=loaded.image, progress=progress
        )

    def write(scan: Scan, grid: Volume, result: Prediction) -> None:
        ensure_dir(out_folder)
        suffixes = ("_uncertainty", "_disagreement", "")  # the mask last, when its maps exist
        targets = [out_folder / f"{scan.name}{kind}.nii.gz" for kind in suffixes]
        if origin is not None:
            targets.insert(0, get_record_path(targets[-1]))
        with atomic_write_many(targets) as files:
            if origin is not None:
                record = origin.now().model_dump(mode="json", exclude_unset=True)
                write_json(files[0], {KEY: record})
            write_map(result.uncertainty, reference=grid, path=files[-3])
            write_map(result.disagreement, reference=grid, path=files[-2])
            write_mask(result.mask, reference=grid, path=files[-1])

    if progress is not None:
        plan_predictions(progress, model)
    return _predict_scans(
        scans, read, compute, write, get_name=lambda scan: scan.name, progress=progress,
        on_error=on_error,
    )  # fmt: skip


def prepare_scan(volume: Volume, model: TrainedModel, name: str) -> PreparedScan:
    """Preprocess a scan for the network of a run, and release its voxels.

    Raises
    ------
    UserError
        Its number of channels differs from that of the network.
    MemoryError
        It is too large to be preprocessed.
    """
    check_channels(volume, model, name)
    assert model.config.preprocessing.spacing is not None
    shape = compute_grid_shape(volume.shape, volume.spacing_mm, model.config.preprocessing.spacing)
    available_bytes = get_free_bytes(torch.device("cpu"))
    if (
        available_bytes is not None
        and 4 * PREPARATION_COPIES * volume.channels * math.prod(shape) > available_bytes
    ):
        raise MemoryError("out of memory: a scan does not fit")
    return PreparedScan(volume.grid_only(), prepare_image(volume, model.config))


def _predict_scans(
    items: Sequence[T],
    read: Callable[[T], PreparedScan],
    compute: Callable[[T, PreparedScan], Prediction],
    write: Callable[[T, Volume, Prediction], None],
    *,
    get_name: Callable[[T], str],
    progress: PredictionProgress | None,
    on_error: OnError | None,
) -> Iterator[Event]:
    """Predict scans while the next one is read and the previous one is written."""
    reports_progress = progress is not None
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
        can_read_ahead=lambda scan: _has_memory_for_next(scan.image),
    )
    number = 0
    with contextlib.closing(steps):
        for step in steps:
            if isinstance(step, ComputingItem):
                if reports_progress:
                    yield progress.start(get_name(step.item))
                continue
            number += 1
            if isinstance(step, WrittenItem):
                grid, result = step.result
                yield _prediction_event(get_name(step.item), number, len(items), result, grid)
            else:
                if step.stage == "read":
                    progress.finish()
                _raise_or_report(get_name(step.item), step.error, on_error)


def _has_memory_for_next(image: npt.NDArray[np.float32]) -> bool:
    """Check whether memory suffices to read another scan of this size during prediction."""
    available_bytes = get_free_bytes(torch.device("cpu"))
    return available_bytes is None or READ_AHEAD_COPIES * image.nbytes < available_bytes


def _raise_or_report(case: str, error: Exception, on_error: OnError | None) -> None:
    if on_error is None:
        raise error
    on_error(case, error)


def check_channels(volume: Volume, model: TrainedModel, name: str) -> None:
    """Reject a scan whose number of channels differs from that of the network."""
    if volume.channels != model.channels:
        raise UserError(
            f"{name} has {format_count(volume.channels, 'channel')}, but this run was trained on "
            f"{model.channels}. Choose scans with the same channels."
        )


def _prediction_event(
    name: str, number: int, total: int, result: Prediction, volume: Volume
) -> PredictedEvent:
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000.0
    values, counts = np.unique(result.mask, return_counts=True)
    volume_ml = {
        str(value): round(float(count) * voxel_ml, 4)
        for value, count in zip(values, counts, strict=True)
        if value
    }
    mean_uncertainty = float(result.uncertainty.mean())
    return PredictedEvent(
        case=name,
        done=number,
        total=total,
        volume_ml=volume_ml,
        mean_uncertainty=round(mean_uncertainty, 6) if np.isfinite(mean_uncertainty) else None,
    )
