"""Prediction of the displayed case while training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.device import empty_cache, is_out_of_memory
from napari_dycon.engine.evaluation import foreground_margin
from napari_dycon.engine.inference.predict import predict_volume
from napari_dycon.engine.training.prepared_scans import PreparedScans
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import Event

if TYPE_CHECKING:
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project


def preview(
    project: Project,
    scans: PreparedScans,
    run: Run,
    model: TrainedModel,
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
