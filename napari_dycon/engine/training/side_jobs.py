"""What a run does beside its steps: scores, a preview of the case in view, its last words."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from napari_dycon.engine.checkpoints import checkpoint
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.preparation import TrainingData, values_to_indices
from napari_dycon.engine.data.preprocessing import (
    cache_path,
    prepare_image,
    read_image_array,
    save_array,
)
from napari_dycon.engine.device import empty_cache, is_out_of_memory
from napari_dycon.engine.evaluation import foreground_margin
from napari_dycon.engine.evaluation.segmentation_metrics import dice_per_class
from napari_dycon.engine.inference.predict import predict_members, predict_volume
from napari_dycon.engine.inference.temperature_scaling import (
    CalibrationSample,
    sample_calibration_voxels,
)
from napari_dycon.engine.inference.uncertainty import ensemble_mean
from napari_dycon.errors import DyconError, ProjectError
from napari_dycon.io.volume import Volume
from napari_dycon.project.runs.events import Event

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project

RETRY_TIMEOUT_S, RETRY_PAUSE_S = 600.0, 2.0  # seconds to try the last saves for, and between tries


def retry_on_full_disk(write: Callable[[], None]) -> Iterator[Event]:
    """Write what a run has at its end, waiting for room: it is nowhere but in memory.

    Raises
    ------
    ProjectError
        It was not possible for ``RETRY_TIMEOUT_S`` seconds.
    """
    end = time.monotonic() + RETRY_TIMEOUT_S
    has_warned = False
    while True:
        try:
            write()
            return
        except ProjectError as error:
            if time.monotonic() >= end:
                raise
            if not has_warned:
                has_warned = True
                yield {
                    "event": "warning",
                    "message": f"The end of the run cannot be saved: {error} It is tried again for "
                    f"{RETRY_TIMEOUT_S / 60:.0f} minutes.",
                }
        time.sleep(RETRY_PAUSE_S)


class PreparedScans:
    """Scans as the network sees them, from the cache; only their grids are kept in memory.

    Reading and normalizing a scan anew for every score would take longer than predicting it.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._cached_grids: dict[Path, tuple[Volume, tuple[int, ...]]] = {}

    def read(self, case: str, config: TrainConfig) -> tuple[Volume, npt.NDArray[np.float32]]:
        """Return the grid of a scan without its voxels, and the prepared scan ``(C, D, H, W)``."""
        path = None
        with contextlib.suppress(OSError):  # reading the scan tells in words what is wrong
            images = self._project.image_paths(case)
            path = cache_path(self._project.cache_folder, case, images, config)
        if path is not None and path in self._cached_grids:
            grid, shape = self._cached_grids[path]
            with contextlib.suppress(ProjectError, OSError):  # deleted or damaged since
                prepared = read_image_array(path, mapped=False)
                if prepared.shape == shape:
                    return grid, prepared
        volume = self._project.read_image(case)
        prepared = prepare_image(volume, config)
        if path is not None:
            with contextlib.suppress(ProjectError, OSError):  # it only saves time
                if not path.exists():
                    save_array(path, prepared)
                self._cached_grids[path] = volume.grid_only(), prepared.shape
        return volume, prepared


def preview(
    project: Project,
    scans: PreparedScans,
    run: Run,
    model: checkpoint.TrainedModel,
    case: str,
    step: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Event:
    """Predict the case being looked at; one that cannot be, or is too large, gives a warning."""
    try:
        volume, prepared = scans.read(case, model.config)
        result = predict_volume(model, volume, device, dtype, fast=True, prepared_image=prepared)
        project.predictions.write(
            run.id, case, result.mask, result.uncertainty, result.disagreement, reference=volume
        )
        score = foreground_margin.mean_foreground_uncertainty(
            result.mask, result.uncertainty, volume.spacing_mm
        )
        project.predictions.write_metadata(run.id, case, {"score": score})
    except DyconError as error:
        return {"event": "warning", "message": f"No preview of {case}: {error}"}
    except (MemoryError, RuntimeError) as error:  # the run must not end for a picture
        if not is_out_of_memory(error):
            raise
        empty_cache(device)
        return {"event": "warning", "message": f"No preview of {case}: memory ran out for it."}
    return {
        "event": "preview",
        "case": case,
        "step": step,
        "mask": str(project.predictions.path(run.id, case, "mask")),
        "uncertainty": str(project.predictions.path(run.id, case, "uncertainty")),
    }


def validate(
    project: Project,
    scans: PreparedScans,
    data: TrainingData,
    model: checkpoint.TrainedModel,
    device: torch.device,
    dtype: torch.dtype,
    samples: list[CalibrationSample] | None = None,
) -> dict[str, object]:
    """Mean Dice of each class over the validation cases, on their own grids.

    Cases that memory does not suffice for, or that cannot be read, are left out, and named under
    ``missed`` with the reason. ``samples`` is given what a temperature can be fitted on, where it
    is asked for.
    """
    scores: dict[int, list[float]] = {value: [] for value in data.class_values}
    skipped_cases: dict[str, str] = {}
    values = np.array([0, *data.class_values], dtype=np.uint8)
    for case in data.validation:
        try:
            volume, prepared = scans.read(case, model.config)
            label = project.labels.read(case, reference=volume)
            if label is None:
                continue
            members = list(predict_members(model, prepared, volume.shape, device, dtype, fast=True))
        except DyconError as error:  # the run must not end for a score
            skipped_cases[case] = str(error)
            continue
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            empty_cache(device)
            skipped_cases[case] = "Memory ran out."
            continue
        mask = values[ensemble_mean(members).argmax(dim=0).numpy()]
        for value, dice in dice_per_class(mask, label, data.class_values).items():
            scores[value].append(dice)
        if samples is not None:
            indices = values_to_indices(label, data.class_values)
            sample = sample_calibration_voxels(members, indices, volume.spacing_mm)
            samples += [sample] if sample is not None else []
    means = {str(value): float(np.mean(found)) for value, found in scores.items() if found}
    return {
        "dice": {key: round(value, 5) for key, value in means.items()},
        "mean": round(float(np.mean(list(means.values()))), 5) if means else None,
        **({"missed": skipped_cases} if skipped_cases else {}),
    }


def warn_about_skipped_cases(validation: dict[str, object]) -> Iterator[Event]:
    """Tell of the cases that a validation had to leave out."""
    skipped_cases = validation.get("missed")
    if skipped_cases and isinstance(skipped_cases, dict):
        name, reason = next(iter(skipped_cases.items()))
        more = f" and {len(skipped_cases) - 1} more" if len(skipped_cases) > 1 else ""
        rest = "and the Dice is of the rest"
        if validation["mean"] is None:
            rest = "so that there is no Dice, and the uncertainty is not calibrated"
        yield {
            "event": "warning",
            "message": f"Validation case {name}{more} could not be scored, {rest}. {reason}",
        }
