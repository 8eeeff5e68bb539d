"""Preliminary prediction: one pass of one network, shown until the complete prediction is ready.

The complete prediction also uses a second network at another size of the scan, windows that overlap
more, and registered atlases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.device import empty_cache, is_out_of_memory
from napari_dycon.engine.inference.predict import (
    TEACHER_INDEX,
    count_member_passes,
    predict_volume,
)
from napari_dycon.engine.inference.predict_scans import prepare_scan
from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import Event, PreliminaryEvent

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

PRELIMINARY_OVERLAP = 0.125  # of windows, in sides of the patch: half of the usual one


def make_preliminary_model(model: TrainedModel) -> TrainedModel:
    """Return the teacher alone, at the size it sees in an ensemble, without atlases."""
    # Copied without validation, which requires two sizes.
    scale = model.config.inference.tta_scales[TEACHER_INDEX]
    inference = model.config.inference.model_copy(update={"tta_scales": (scale,)})
    config = model.config.model_copy(update={"inference": inference})
    return dataclasses.replace(
        model,
        student=model.teacher,
        config=config,
        atlases=(),
        overlap_side=PRELIMINARY_OVERLAP,
    )


def predict_preliminary(
    project: Project,
    run_id: str,
    model: TrainedModel,
    cases: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    progress: PredictionProgress,
) -> Iterator[Event]:
    """Predict cases with the teacher alone into ``predictions/RUN/preliminary``.

    A case that fails is left out: the complete prediction reports why.
    """
    network = make_preliminary_model(model)
    progress.set_total(len(cases), "preliminary")
    for case in cases:
        progress.start(case, "preliminary")
        try:
            scan = prepare_scan(project.read_image(case), model, case)
            passes = count_member_passes(network, fast=True, shape=scan.image.shape[1:])
            progress.plan("preliminary", passes=passes)
            result = predict_volume(
                network, scan.grid, device, dtype, fast=True, prepared_image=scan.image,
                progress=progress,
            )  # fmt: skip
            project.predictions.write_provisional(
                run_id, case, result.mask, result.uncertainty,
                stage="preliminary", reference=scan.grid,
            )  # fmt: skip
        except (DyconError, MemoryError, RuntimeError) as error:
            if not isinstance(error, DyconError) and not is_out_of_memory(error):
                raise
            empty_cache(device)
            continue
        finally:
            progress.finish()
        yield PreliminaryEvent(case=case)
