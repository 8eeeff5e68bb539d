"""Predict many scans; continue if a scan cannot be predicted.

An error that affects all scans, such as a full disk, stops the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.engine.inference.predict_scans import predict_cases, predict_files
from napari_dycon.errors import DyconError, EngineError, UserError
from napari_dycon.project.importing.case_import import is_scan_specific
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.prediction_origin import PredictionOrigin
from napari_dycon.project.runs.events import Event, SkippedEvent
from napari_dycon.project.store import Project

if TYPE_CHECKING:
    import torch

    from napari_dycon.engine.checkpoints.model_file import TrainedModel
    from napari_dycon.engine.inference.progress import PredictionProgress

OnNote = Callable[[str], None]


@dataclass(frozen=True)
class FailedPrediction:
    """A scan that could not be predicted, with the reason."""

    name: str
    error: DyconError

    def to_event(self) -> SkippedEvent:
        """Return the event for JSON output."""
        return SkippedEvent(case=self.name, reason=str(self.error))


def predict_case_batch(
    project: Project,
    run_id: str,
    model: TrainedModel,
    cases: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    *,
    failures: list[FailedPrediction],
    on_note: OnNote,
    progress: PredictionProgress | None = None,
    origin: PredictionOrigin | None = None,
) -> Iterator[Event]:
    """Predict cases with ``predict_cases``; cases that fail are added to ``failures``.

    Raises
    ------
    DyconError
        No case could be predicted; the error of the first case is raised.
    """

    def report_labeled_failure(case: str, error: Exception) -> None:
        failure = build_failure_or_raise(case, error)
        on_note(f"A labeled scan cannot be used for atlas fusion: {failure.error}")

    events = predict_cases(
        project, run_id, model, cases, device, dtype, progress=progress,
        on_error=lambda case, error: failures.append(build_failure_or_raise(case, error)),
        on_labeled_error=report_labeled_failure, origin=origin,
    )  # fmt: skip
    yield from events
    if cases and len(failures) == len(cases):
        raise failures[0].error


def predict_file_batch(
    scans: Sequence[Scan],
    out: Path,
    model: TrainedModel,
    device: torch.device,
    dtype: torch.dtype,
    *,
    resample: bool,
    failures: list[FailedPrediction],
    on_note: OnNote,
    progress: PredictionProgress | None = None,
    origin: PredictionOrigin | None = None,
) -> Iterator[Event]:
    """Predict scans with ``predict_files``; scans that fail are added to ``failures``.

    Nothing is written if no scan can be predicted.

    Raises
    ------
    DyconError
        No scan could be predicted; the error of the first scan is raised.
    """
    yield from predict_files(
        scans, out, model, device, dtype, resample=resample, on_note=on_note, progress=progress,
        on_error=lambda name, error: failures.append(build_failure_or_raise(name, error)),
        origin=origin,
    )  # fmt: skip
    if scans and len(failures) == len(scans):
        raise failures[0].error


def summarize_failures(failures: Sequence[FailedPrediction], total: int) -> DyconError:
    """Summarize failures as one error: a ``UserError`` if all are, else an ``EngineError``."""
    first = failures[0]
    error_type = (
        UserError
        if all(isinstance(failure.error, UserError) for failure in failures)
        else EngineError
    )
    return error_type(
        f"{len(failures)} of {total} scans could not be predicted; the others were. "
        f"{first.name}: {first.error}"
    )


def build_failure_or_raise(name: str, error: Exception) -> FailedPrediction:
    """Return the failure of a single scan; raise an error that affects all scans."""
    if isinstance(error, UserError) and is_scan_specific(error):
        # A traceback would keep the scan in memory.
        return FailedPrediction(name, error.with_traceback(None))
    if is_out_of_memory(error):
        advice = "Close other programs, choose --device cpu, or crop the scan."
        too_large = f"{name} is too large for the available memory. {advice}"
        return FailedPrediction(name, EngineError(too_large))
    raise error
