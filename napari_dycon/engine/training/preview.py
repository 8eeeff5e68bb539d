"""Prediction of the displayed case while training runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.prepared_scans import PreparedScans
from napari_dycon.engine.device import empty_cache, is_out_of_memory
from napari_dycon.engine.evaluation import foreground_margin
from napari_dycon.engine.inference.predict import predict_volume
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.control import RunControlReader
from napari_dycon.engine.training.interval import Interval
from napari_dycon.engine.training.setup import Compute
from napari_dycon.errors import DyconError
from napari_dycon.project.prediction_store import PredictionMetadata, PredictionStore
from napari_dycon.project.runs.events import Event, PreviewEvent, WarningEvent

MIN_PREVIEW_STEP = 10  # before this step a prediction shows nothing useful
PREVIEW_TIME_FRACTION = 0.0125  # of a run's time, at most


class Previewer:
    """Periodic prediction of the displayed case.

    Parameters
    ----------
    run_id : run under whose id the predictions are written
    """

    def __init__(
        self,
        run_id: str,
        config: TrainConfig,
        compute: Compute,
        scans: PreparedScans,
        predictions: PredictionStore,
        control: RunControlReader,
        clock: TrainingClock,
    ) -> None:
        self._run_id, self._compute = run_id, compute
        self._scans, self._predictions = scans, predictions
        self._control, self._clock = control, clock
        self._interval = Interval(
            config.intervals.preview_s, PREVIEW_TIME_FRACTION, first_delay_s=0.0
        )

    def preview_if_due(self, model: TrainedModel, step: int) -> Iterator[Event]:
        """Predict the displayed case if there is one and a preview is due; yields its event."""
        case = self._control.preview_case()
        if (
            case is None
            or step < MIN_PREVIEW_STEP
            or not self._interval.is_due(self._clock.elapsed())
        ):
            return
        begin = time.monotonic()
        yield self._predict(model, case, step)
        self._interval.record(self._clock.elapsed(), time.monotonic() - begin)

    def _predict(self, model: TrainedModel, case: str, step: int) -> Event:
        """Predict a case and return an event; a failure is a warning, not an error."""
        device, dtype = self._compute.device, self._compute.dtype
        predictions, run_id = self._predictions, self._run_id
        try:
            volume, prepared = self._scans.read(case, model.config)
            result = predict_volume(
                model, volume, device, dtype, fast=True, prepared_image=prepared
            )
            predictions.write(
                run_id, case, result.mask, result.uncertainty, result.disagreement, reference=volume
            )
            score = foreground_margin.mean_foreground_uncertainty(
                result.mask, result.uncertainty, volume.spacing_mm
            )
            predictions.write_metadata(run_id, case, PredictionMetadata(score=score))
        except DyconError as error:
            return WarningEvent(message=f"No preview of {case}: {error}")
        except (MemoryError, RuntimeError) as error:  # a failed preview must not end the run
            if not is_out_of_memory(error):
                raise
            empty_cache(device)
            return WarningEvent(message=f"No preview of {case}: memory ran out for it.")
        return PreviewEvent(
            case=case,
            step=step,
            mask=str(predictions.path(run_id, case, "mask")),
            uncertainty=str(predictions.path(run_id, case, "uncertainty")),
        )
