"""The folder of one training run: settings, events, weights, metrics and control."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import write_json
from napari_dycon.core.untrusted import read_json
from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.events import (
    Event,
    ResumedEvent,
    StartedEvent,
    format_event,
    parse_event,
)
from napari_dycon.project.runs.metadata import RunControl, RunMetrics

MAX_EVENTS_BYTES = 2**26  # bytes that are read at once
MAX_METRICS_BYTES = 2**24  # of the file that lists the cases a run learned from


@dataclass(frozen=True)
class Run:
    """``runs/RUN`` of a project."""

    folder: Path

    @property
    def id(self) -> str:
        """Name of the run, such as ``001-dycon``."""
        return self.folder.name

    @property
    def config_path(self) -> Path:
        """Settings, completed by the plan once the run has started."""
        return self.folder / "config.json"

    @property
    def events_path(self) -> Path:
        """Events of the run, one JSON object per line."""
        return self.folder / "events.jsonl"

    @property
    def weights_path(self) -> Path:
        """Student and teacher, for prediction."""
        return self.folder / "weights.safetensors"

    @property
    def state_folder(self) -> Path:
        """Files needed to resume the run."""
        return self.folder / "state"

    @property
    def state_path(self) -> Path:
        """Training state of the last checkpoint."""
        return self.state_folder / "state.safetensors"

    @property
    def registrations_folder(self) -> Path:
        """Registered cases and pseudo-labels, while the run trains."""
        return self.state_folder / "registrations"

    @property
    def metrics_path(self) -> Path:
        """Final metrics of the run."""
        return self.folder / "metrics.json"

    @property
    def control_path(self) -> Path:
        """Requests to the running process."""
        return self.folder / "control.json"

    @property
    def log_path(self) -> Path:
        """Readable log, and what the process writes if it crashes."""
        return self.folder / "log.txt"

    @property
    def method(self) -> str:
        """Method of the run, as in its settings."""
        return str(self.read_config().get("method", ""))

    @property
    def has_weights(self) -> bool:
        """Whether the run has weights to predict with."""
        return self.weights_path.exists()

    def read_config(self) -> dict[str, Any]:
        """Read the settings."""
        try:
            values = read_json(self.config_path)
            if not isinstance(values, dict):
                raise ValueError("it is not a JSON object")
            return values
        except (OSError, ValueError) as error:
            raise ProjectError(
                f"Run {self.id} cannot be used: its settings (config.json) cannot be read "
                f"({error}). Choose another run or train again."
            ) from None

    def read_metrics(self) -> RunMetrics:
        """Read the final metrics; all fields are ``None`` until the run has ended."""
        try:
            return RunMetrics.model_validate(read_json(self.metrics_path, MAX_METRICS_BYTES))
        except (OSError, ValueError):
            return RunMetrics()

    def write_metrics(self, metrics: RunMetrics) -> None:
        """Write the final metrics."""
        write_json(self.metrics_path, metrics.model_dump(mode="json"))

    def read_control(self) -> RunControl:
        """Read the requests to the run; the defaults if there are none.

        Raises
        ------
        ProjectError
            The file exists and cannot be read.
        """
        try:
            value = read_json(self.control_path)
        except FileNotFoundError:
            return RunControl()
        except (OSError, ValueError) as error:
            raise ProjectError(
                f"{self.control_path} cannot be read ({error}). Try again; if that does not help, "
                "delete the file."
            ) from None
        return RunControl.model_validate(value) if isinstance(value, dict) else RunControl()

    def write_control(self, **changes: Any) -> None:
        """Change fields of ``RunControl``: ``command``, ``preview``."""
        control = self.read_control().model_copy(update=changes)
        write_json(self.control_path, control.model_dump(exclude_unset=True))

    def append_event(self, event: Event) -> None:
        """Append one line to ``events.jsonl``, or nothing if it cannot be written completely.

        A line that a killed process left incomplete is terminated first; otherwise the new event
        would become part of it and be lost.

        Raises
        ------
        OSError
            The disk is full, or the folder gone.
        """
        line = (format_event(event) + "\n").encode("utf-8")
        with self.events_path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise

    def read_events(self, offset: int = 0) -> tuple[list[Event], int]:
        """Read the events from a byte offset on; returns them and the offset of the next call.

        An incomplete last line is left for the next call. Lines that are not events are skipped,
        and only the last ``MAX_EVENTS_BYTES`` bytes are read.
        """
        try:
            if not self.events_path.is_file():  # opening a pipe would wait for its writer
                return [], offset
            with self.events_path.open("rb") as file:
                offset = max(offset, file.seek(0, os.SEEK_END) - MAX_EVENTS_BYTES)
                file.seek(offset)
                data = file.read(MAX_EVENTS_BYTES)
        except FileNotFoundError:
            return [], offset
        end = data.rfind(b"\n") + 1
        events = (parse_event(line) for line in data[:end].splitlines())
        return [event for event in events if event is not None], offset + end

    def read_history(self) -> list[Event]:
        """Read the events of all parts of the run as if it had never been interrupted.

        A killed run resumes from its last checkpoint and repeats the later steps; their earlier
        events are left out.
        """
        return merge_resumed_events(self.read_events()[0])


def merge_resumed_events(events: list[Event]) -> list[Event]:
    """Leave out the events of steps that were repeated after a resume; see ``Run.read_history``."""
    history: list[Event] = []
    for event in events:
        if (
            isinstance(event, (StartedEvent, ResumedEvent))
            and (step := event.resumed_from_step) is not None
        ):
            history = [old for old in history if not _is_repeated(old, step)]
        history.append(event)
    return history


def _is_repeated(event: Event, resumed_from_step: int) -> bool:
    step = getattr(event, "step", None)
    return isinstance(step, int) and step > resumed_from_step
