"""The run at work: started, attached to, paused, stopped, and followed through its events."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import subprocess
import time
from typing import TYPE_CHECKING, Any

from napari_dycon.application import engine_process
from napari_dycon.application.run_status import RunStatus, apply_event
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.errors import BusyError, DyconError, UserError
from napari_dycon.project.runs.run import Run

if TYPE_CHECKING:
    from napari_dycon.session import Session

Event = dict[str, Any]


class RunController:
    """At most one run at work of the session's project."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.status = RunStatus()
        self._run: Run | None = None
        self.remote_host = ""  # which other machine the run is at work on, as in " on ward-3"

    def start(self, config: TrainConfig | None, **changes: Any) -> str:
        """Start a run; see ``Session.start_training``."""
        session = self._session
        project = session.require_project()
        if self.remote_host:
            self.detach()  # it goes on there, and is no reason not to train here
        if self.status.phase != "idle":
            raise BusyError(f"Run {self.status.run} is at work; stop it before starting another.")
        session.flush()
        config = config or make_config("dycon")
        config = config.with_changes(**changes) if changes else config
        if not project.has_labeled_cases():
            raise UserError(
                "No case is labeled yet, and training needs at least one. Choose a case, paint "
                "the structure, then mark the case as labeled."
            )
        run = project.runs.create(config.method, config.to_dict())
        run.write_control(command="run", preview=session.case.id if session.case else None)
        session.runs_changed.emit()
        self._set_status(RunStatus("starting", run.id, text="Starting the engine"))
        try:
            process = engine_process.launch_training(project.path, run)
        except OSError as error:
            self._set_status(RunStatus())
            raise DyconError(f"The engine could not be started: {error}") from error
        self._run = run
        self._follow_run(run, process)
        return run.id

    def send_command(self, command: str) -> None:
        """Write "run", "pause" or "stop" where the engine looks for it."""
        if self._run is None:
            raise UserError("No run is at work.")
        self._session.require_project().require_writable()
        self._run.write_control(command=command)
        if command == "stop":
            self._set_status(
                dataclasses.replace(self.status, phase="stopping", text="Stopping: saving weights")
            )

    def wait(self, timeout_s: float | None) -> None:
        """Block until no run and no prediction is at work."""
        start_time = time.monotonic()
        while self.status.phase != "idle" or self._session.review.is_predicting:
            if timeout_s is not None and time.monotonic() - start_time > timeout_s:
                subject = f"Run {self.status.run}" if self.status.run else "A prediction"
                raise DyconError(f"{subject} was still at work after {timeout_s} s.")
            time.sleep(0.05)

    def attach(self) -> None:
        """Follow a run of the project that is still at work, from its first event."""
        project = self._session.project
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
            text = f"Attached to a run at work{self.remote_host}"
            self._set_status(RunStatus("starting", run.id, text=text))
            self._follow_run(run)

    def detach(self) -> None:
        """Let go of the run; it goes on by itself."""
        self._run, self.remote_host = None, ""
        self._set_status(RunStatus())

    def request_preview(self) -> None:
        """Ask the run at work for pictures of the case in view."""
        session = self._session
        if self._run is None or session.case is None or session.project is None:
            return
        if not session.project.read_only_reason:
            # A full disk must not keep the case from being shown: strokes would go to the old one.
            with contextlib.suppress(DyconError):
                self._run.write_control(preview=session.case.id)

    def _follow_run(self, run: Run, process: subprocess.Popen[bytes] | None = None) -> None:
        events = engine_process.follow_training(run, process)
        self._session.follow_process(
            f"Training {run.id}", events, functools.partial(self._on_event, run)
        )

    def _on_event(self, run: Run, event: Event) -> None:
        session, kind = self._session, event.get("event")
        # "waiting" is only there so that a worker can be ended between events.
        if kind == "waiting" or self._run is None or run != self._run:
            return
        if kind in engine_process.FINAL_EVENTS:
            self._run, self.remote_host = None, ""
        self._set_status(apply_event(self.status, event))
        session.event.emit(event)
        if kind == "preview":
            session.refresh_prediction(str(event["case"]))
        elif kind == "warning":
            session.message.emit("warning", str(event["message"]))
        elif kind == "failed":
            session.message.emit("error", str(event["message"]))
        if kind in engine_process.FINAL_EVENTS:
            session.runs_changed.emit()

    def _set_status(self, status: RunStatus) -> None:
        if status != self.status:
            self.status = status
            self._session.run_changed.emit(status)
