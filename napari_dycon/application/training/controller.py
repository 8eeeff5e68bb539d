"""Control of the active run: start, attach, pause, stop, follow events."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from napari_dycon.application import engine_process
from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.labels.autosave import LabelAutosaver
from napari_dycon.application.process_followers import ProcessFollowers
from napari_dycon.application.review import Review
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import Progress
from napari_dycon.application.training.status import (
    NEXT_TEXT,
    PAUSING_TEXT,
    STOPPING_TEXT,
    RunPhase,
    RunStatus,
    apply_event,
    describe_outcome,
    starting_text,
)
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.splits import describe_validation_only
from napari_dycon.errors import BusyError, ConfigError, DyconError, UserError
from napari_dycon.project.runs.events import (
    Event,
    FailedEvent,
    FinalEvent,
    FinishedEvent,
    IdleEvent,
    PreviewEvent,
    StepEvent,
    StoppedEvent,
    WarningEvent,
)
from napari_dycon.project.runs.metadata import Command
from napari_dycon.project.runs.run import Run

COMMAND_STATUS: dict[Command, tuple[RunPhase, str]] = {
    "run": ("training", "Resuming…"),
    "pause": ("pausing", PAUSING_TEXT),
    "stop": ("stopping", STOPPING_TEXT),
}


class RunController:
    """Starts, follows and commands at most one run of the open project."""

    def __init__(
        self,
        state: AppState,
        followers: ProcessFollowers,
        autosaver: LabelAutosaver,
        review: Review,
    ) -> None:
        self._state = state
        self._followers = followers
        self._autosaver = autosaver
        self._review = review
        self._run: Run | None = None
        self._warnings: list[str] = []  # since the last step
        self._has_previews = True
        self._preview_case: str | None = None  # that the run was asked to predict
        self.remote_host = ""  # other machine that trains the run, as in " on ward-3"
        state.project_closed.connect(self.detach)
        state.case_shown.connect(self.request_preview)
        state.prediction_changed.connect(self.request_preview)

    def start(self, config: TrainConfig | None, **changes: Any) -> str:
        """Start a run; see ``Session.start_training``."""
        state = self._state
        project = state.require_project()
        if self.remote_host:
            self.detach()  # it continues there and does not prevent training here
        if state.run_status.phase != "idle":
            raise BusyError(
                f"Run {state.run_status.run} is running. Stop it before starting another."
            )
        self._autosaver.flush()
        if config is None:
            method, preset = changes.pop("method", "dycon"), changes.pop("preset", "default")
            config = make_config(method, preset, **changes)
        elif changes:
            _reject_method_of_config(changes)
            config = config.with_changes(**changes)
        if not project.has_labeled_cases():
            if validation := project.labeled_cases("validation"):
                raise UserError(describe_validation_only([case.id for case in validation]))
            raise UserError(
                "No case is labeled yet, and training needs at least one. Choose a case, paint "
                "the structure, then mark the case as labeled."
            )
        run = project.runs.create(config.method, config.to_dict())
        self._has_previews = config.preview
        self._preview_case = self._choose_preview_case()
        run.write_control(command="run", preview=self._preview_case)
        state.runs_changed.emit()
        state.set_run_status(RunStatus("starting", run.id, text=starting_text(run.id)))
        try:
            process = engine_process.launch_training(project.path, run)
        except OSError as error:
            state.set_run_status(RunStatus())
            raise DyconError(f"Training could not be started: {error}") from error
        self._run = run
        self._follow_run(run, process)
        return run.id

    def send_command(self, command: Command) -> None:
        """Send "run", "pause" or "stop" to the engine."""
        if self._run is None:
            raise UserError("No run is active.")
        self._state.require_project().require_writable()
        self._run.write_control(command=command)
        phase, text = COMMAND_STATUS[command]  # shown at once; the engine answers later
        self._state.set_run_status(
            dataclasses.replace(self._state.run_status, phase=phase, text=text, remaining_s=None)
        )

    def wait(self, timeout_s: float | None) -> None:
        """Block until no run and no prediction is active."""
        start_time = time.monotonic()
        state = self._state
        while state.run_status.phase != "idle" or self._review.is_predicting:
            if timeout_s is not None and time.monotonic() - start_time > timeout_s:
                run_id = state.run_status.run
                subject = f"Run {run_id}" if run_id else "A prediction"
                raise DyconError(f"{subject} was still running after {timeout_s} s.")
            time.sleep(0.05)

    def attach(self) -> None:
        """Follow a run of the project that is still running, from its first event."""
        project = self._state.project
        if project is None:
            return
        read_only = bool(project.read_only_reason)
        running = [
            run
            for run in project.runs.list()
            if engine_process.is_running(run, read_only=read_only)
        ]
        running.sort(
            key=lambda run: not engine_process.remote_host(run)
        )  # this machine's newest one last
        for run in running[-1:]:
            self._run, self.remote_host = run, engine_process.remote_host(run)
            self._has_previews = run.read_config().get("preview") is not False
            self._preview_case = run.read_control().preview
            text = f"Attached to running training{self.remote_host}"
            self._state.set_run_status(RunStatus("starting", run.id, text=text))
            self._follow_run(run)

    def detach(self) -> None:
        """Stop following the run; it continues by itself."""
        self._end_previews()
        self._state.set_run_status(RunStatus())

    # ---- Previews ----------------------------------------------------------------------------

    def find_preview_blocked_reason(self) -> str:
        """Return why previews cannot be shown instead of a finished prediction; empty if can."""
        case = self._state.case
        if self._run is None or not self._has_previews:
            return "no training with previews is running"
        if case is None:
            return "select a case in the list first"
        return "" if _has_finished_prediction(case) or self._review.preview_of else "it is shown"

    def show_previews(self, is_shown: bool) -> None:
        """Show previews of the run instead of finished predictions, or finished ones again."""
        if self._run is not None:
            self._review.preview_of = self._run.id if is_shown else None
            self.request_preview()

    def request_preview(self, *_: object) -> None:
        """Request previews of the active case from the run, if they would be shown."""
        project, case = self._state.project, self._choose_preview_case()
        if self._run is None or project is None or case == self._preview_case:
            return
        if not project.read_only_reason:
            # A full disk must not prevent the case from being shown.
            with contextlib.suppress(DyconError):
                self._run.write_control(preview=case)
                self._preview_case = case

    def _choose_preview_case(self) -> str | None:
        """Return the active case, unless it shows its finished prediction."""
        case = self._state.case
        if case is None:
            return None
        is_wanted = self._review.preview_of is not None or not _has_finished_prediction(case)
        return case.id if is_wanted else None

    def _end_previews(self) -> None:
        """Show finished predictions again where there are some."""
        self._run, self.remote_host, self._preview_case = None, "", None
        self._review.preview_of = None

    def _follow_run(self, run: Run, process: subprocess.Popen[bytes] | None = None) -> None:
        events = engine_process.follow_training(run, process)
        self._followers.follow(
            f"Training {run.id}",
            events,
            functools.partial(self._on_event, run),
            get_progress=self._get_progress,
            on_cancel=functools.partial(self._stop_run, run),
            is_listed=False,  # the panel shows the status of the run
        )

    def _get_progress(self) -> Progress:
        status = self._state.run_status
        return Progress(status.summary, status.progress)

    def _stop_run(self, run: Run) -> None:
        """Stop a run from the activity dock, where its button may outlive it."""
        if self._run == run:
            try:
                self.send_command("stop")
            except DyconError as error:
                self._state.report_error(error)

    def _on_event(self, run: Run, event: Event) -> None:
        state = self._state
        if isinstance(event, IdleEvent) or self._run is None or run != self._run:
            return
        if isinstance(event, FinalEvent):
            self._end_previews()
        n_validation = state.run_status.n_validation
        state.set_run_status(apply_event(state.run_status, event))
        state.event.emit(event)
        state.run_event.emit(event)
        if isinstance(event, PreviewEvent) and event.case == self._choose_preview_case():
            self._review.refresh(event.case)
        elif isinstance(event, WarningEvent):
            state.message.emit("warning", event.message)
            self._warnings.append(event.message)
        elif isinstance(event, FailedEvent):
            state.message.emit("error", event.message)
        elif isinstance(event, StepEvent):
            self._warnings.clear()
        elif isinstance(event, (FinishedEvent, StoppedEvent)):
            # A warning at the end, such as of too little time, stays legible.
            level, ending = ("warning", self._warnings) if self._warnings else ("result", [])
            next_step = [NEXT_TEXT] if run.has_weights and not ending else []
            text = " ".join([describe_outcome(event, n_validation), *ending, *next_step])
            state.message.emit(level, text)
            self._warnings.clear()
        if isinstance(event, FinalEvent):
            state.runs_changed.emit()


def _has_finished_prediction(case: ActiveCase) -> bool:
    """Whether the prediction that is shown, or is being read, is no preview."""
    return case.is_prediction_pending or (case.prediction is not None and not case.is_preview)


def _reject_method_of_config(changes: Mapping[str, Any]) -> None:
    """Reject a method or preset beside settings, which were made for one already."""
    for name in changes.keys() & {"method", "preset"}:
        raise ConfigError(
            f"{name}={changes[name]!r} cannot be combined with a config. Give it to make_config: "
            'make_config("supervised", "default").'
        )
