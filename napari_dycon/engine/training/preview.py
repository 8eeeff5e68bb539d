"""Prediction of the displayed case while training runs.

Previews are stored apart from predictions, which they never replace.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.prepared_scans import PreparedScans
from napari_dycon.engine.device import empty_cache, is_out_of_memory
from napari_dycon.engine.inference.predict import predict_volume
from napari_dycon.engine.inference.prediction_effort import Effort, reduce_effort
from napari_dycon.engine.training.background_task import TaskRunner
from napari_dycon.engine.training.clock import TrainingClock
from napari_dycon.engine.training.control import RunControlReader
from napari_dycon.engine.training.interval import Interval
from napari_dycon.engine.training.setup import Compute
from napari_dycon.engine.training.time_plan import TimePlan
from napari_dycon.errors import DyconError
from napari_dycon.project.prediction_store import PredictionStore
from napari_dycon.project.runs.events import Event, PhaseEvent, PreviewEvent, WarningEvent

MIN_PREVIEW_STEP = 10  # before this step a prediction shows nothing useful
MAX_TIME_FRACTION = 0.06  # of a run's time, which previews may take
SINGLE_FRACTION = 0.01  # of a run's time, which a preview with overlapping windows may take


class Previewer:
    """Periodic prediction of the displayed case with the student alone.

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
        plan: TimePlan,
        tasks: TaskRunner,
    ) -> None:
        self._run_id, self._compute, self._is_enabled = run_id, compute, config.preview
        self._scans, self._predictions = scans, predictions
        self._control, self._clock = control, clock
        self._plan, self._tasks = plan, tasks
        self._interval = Interval(
            config.intervals.preview_s, MAX_TIME_FRACTION, plan.joint, first_delay_s=0.0
        )

    def preview_if_due(self, model: TrainedModel, step: int) -> Iterator[Event]:
        """Predict the displayed case if there is one and a preview is due; yields its event."""
        case = self._control.preview_case() if self._is_enabled else None
        now = self._clock.elapsed()
        if case is None or step < MIN_PREVIEW_STEP or self._interval.is_waiting(now):
            return
        shape = self._plan.prepared_shape(case, model)
        effort, cost_s = Effort.SINGLE, 0.0
        if shape is not None:
            self._plan.timer.measure(model)
            limit_s = self._clock.time_limit_s
            cost_s = self._plan.timer.estimate(model, shape, effort)
            if cost_s > SINGLE_FRACTION * (limit_s or now):
                effort = Effort.COARSE
                cost_s = self._plan.timer.estimate(model, shape, effort)
            if not self._interval.is_due(now, cost_s, limit_s):
                return
        begin = self._clock.elapsed()
        event = yield from self._run_task(model, case, step, effort)
        seconds = self._clock.elapsed() - begin
        if event is not None:
            if shape is not None:
                self._plan.timer.record(model, shape, effort, seconds)
            yield event
        self._interval.record(self._clock.elapsed(), seconds)

    def _run_task(
        self, model: TrainedModel, case: str, step: int, effort: Effort
    ) -> Generator[Event, None, Event | None]:
        def describe() -> Event:
            return PhaseEvent(phase="preview", total=1, remaining_s=self._plan.remaining(step))

        yield describe()
        event = yield from self._tasks.run(
            lambda: self._predict(reduce_effort(model, effort), case, step), describe
        )
        yield PhaseEvent(phase="training", remaining_s=self._plan.remaining(step))
        return event

    def _predict(self, model: TrainedModel, case: str, step: int) -> Event:
        """Predict a case and return an event; a failure is a warning, not an error."""
        device, dtype = self._compute.device, self._compute.dtype
        predictions, run_id = self._predictions, self._run_id
        try:
            volume, prepared = self._scans.read(case, model.config)
            with self._tasks.checked_windows(model.student):
                result = predict_volume(
                    model, volume, device, dtype, fast=True, prepared_image=prepared
                )
            self._tasks.check()
            predictions.write_provisional(
                run_id, case, result.mask, result.uncertainty, stage="preview", reference=volume
            )
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
            mask=str(predictions.path(run_id, case, "mask", stage="preview")),
            uncertainty=str(predictions.path(run_id, case, "uncertainty", stage="preview")),
        )
