"""The folder of one training run: settings, events, weights, control; standard library only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import write_json
from napari_dycon.core.untrusted import parse_integer, parse_number, read_json
from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.event_lines import parse_event

MAX_EVENTS_BYTES = 2**26  # bytes that are read at once
MAX_METRICS_BYTES = 2**24  # of the file that lists the cases a run learned from


def _accept_any(_: object) -> bool:
    return True


def _is_text_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_score_or_none(value: object) -> bool:
    return value is None or parse_number(value, 0, 1) is not None


METRIC_VALIDATORS: dict[str, Callable[[object], bool]] = {
    "step": lambda value: parse_integer(value, 0, 10**12) is not None,
    "elapsed": lambda value: parse_number(value, 0, 1e12) is not None,
    "skipped": lambda value: parse_integer(value, 0, 10**12) is not None,
    "dice": _is_score_or_none,
    "outcome": lambda value: isinstance(value, str),
    "validation": lambda value: isinstance(value, dict),
    "temperature": lambda value: parse_number(value, 0, 1e6) is not None,
    "labeled": _is_text_list,
}


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
        """Everything the engine said, a JSON object a line."""
        return self.folder / "events.jsonl"

    @property
    def weights_path(self) -> Path:
        """Student and teacher, for prediction."""
        return self.folder / "weights.safetensors"

    @property
    def state_folder(self) -> Path:
        """What resuming needs."""
        return self.folder / "state"

    @property
    def state_path(self) -> Path:
        """Training state of the last checkpoint."""
        return self.state_folder / "state.safetensors"

    @property
    def registrations_folder(self) -> Path:
        """Registered cases and pseudo-labels, while the run trains."""
        return self.state_folder / "borrowed"

    @property
    def metrics_path(self) -> Path:
        """How the run ended."""
        return self.folder / "metrics.json"

    @property
    def control_path(self) -> Path:
        """What the person asks of it while it runs."""
        return self.folder / "control.json"

    @property
    def method(self) -> str:
        """Method of the run, as in its settings."""
        return str(self.read_config().get("method", ""))

    @property
    def has_weights(self) -> bool:
        """Whether it can predict."""
        return self.weights_path.exists()

    def read_config(self) -> dict[str, Any]:
        """Read the settings."""
        try:
            values = read_json(self.config_path)
            if not isinstance(values, dict):
                raise ValueError("it is no JSON object")
            return values
        except (OSError, ValueError) as error:
            raise ProjectError(
                f"Run {self.id} cannot be used: its settings (config.json) cannot be read "
                f"({error}). Choose another run or train again."
            ) from None

    def read_metrics(self) -> dict[str, Any]:
        """How the run ended; empty while it has not, and without what it can not have been."""
        try:
            values = read_json(self.metrics_path, MAX_METRICS_BYTES)
        except (OSError, ValueError):
            return {}
        if not isinstance(values, dict):
            return {}
        return {k: v for k, v in values.items() if METRIC_VALIDATORS.get(k, _accept_any)(v)}

    def read_control(self) -> dict[str, Any]:
        """What was asked for; empty when nothing was.

        Raises
        ------
        ProjectError
            The file is there and cannot be read.
        """
        try:
            value = read_json(self.control_path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ProjectError(
                f"{self.control_path} cannot be read ({error}). Try again; if that does not help, "
                "delete the file."
            ) from None
        return value if isinstance(value, dict) else {}

    def write_control(self, **changes: Any) -> None:
        """Change what is asked for: ``command`` (run, pause, stop), ``preview`` (case or None)."""
        write_json(self.control_path, {**self.read_control(), **changes})

    def append_event(self, event: dict[str, Any]) -> None:
        """Add one line to ``events.jsonl``, or nothing where it cannot be written whole.

        A line that a killed process left half written is ended first: glued to it, the next event
        would be lost.

        Raises
        ------
        OSError
            The disk is full, or the folder gone.
        """
        line = (json.dumps(event, ensure_ascii=False) + "\n").encode("utf-8")
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

    def read_events(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Read the events from a byte offset on; returns them and the offset to go on from.

        A last line that is still being written is left for the next time. Lines that are no events
        count as not there, and of more than ``MAX_EVENTS_BYTES`` bytes the last ones are read.
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

    def read_history(self) -> list[dict[str, Any]]:
        """Read the events of all parts of the run as if it had never been interrupted.

        A run that was killed goes on from its last checkpoint and makes the steps after it again;
        what was said of them before is left out.
        """
        return merge_resumed_events(self.read_events()[0])


def merge_resumed_events(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out of a run's events the steps that were made again; see ``Run.read_history``."""
    history: list[dict[str, Any]] = []
    for event in events:
        resumed_from = event.get("from_step")
        if event.get("event") in ("started", "resumed") and isinstance(resumed_from, int):
            history = [old for old in history if not _is_superseded(old, resumed_from)]
        history.append(event)
    return history


def _is_superseded(event: dict[str, Any], resumed_from: int) -> bool:
    event_step = event.get("step")
    return isinstance(event_step, int) and event_step > resumed_from
