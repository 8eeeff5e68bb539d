"""Readable log of a run: its phases, warnings and errors, without names of cases and paths."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from napari_dycon.core.text import escape_control_characters
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import (
    Event,
    FailedEvent,
    FinishedEvent,
    PausedEvent,
    PhaseEvent,
    ResumedEvent,
    SemiSupervisedEvent,
    StartedEvent,
    StoppedEvent,
    ValidationEvent,
    WarningEvent,
)
from napari_dycon.project.runs.phase_text import DICE, describe_phase, describe_semi_supervised
from napari_dycon.project.runs.run import Run

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

CASE, PATH = "[case]", "[path]"
MAX_LOG_BYTES = 2**22  # after which nothing more is written
_REST_OF_PATH = re.compile(rf"{re.escape(PATH)}[\\/][^\s'\",;]*")
_PATH = re.compile(r"(?<![\w\]])(?:[A-Za-z]:[\\/]|\\\\|~?/)[^\s'\",;]+")


class RunLog:
    """Writes ``log.txt`` of a run, which can be sent to others: it names no case and no path.

    Parameters
    ----------
    case_ids : names of all cases
    paths : paths that may occur in messages, also with spaces in them
    """

    def __init__(self, run: Run, case_ids: Iterable[str], paths: Iterable[str]) -> None:
        self._run = run
        self._case_ids = sorted(set(case_ids), key=len, reverse=True)
        self._paths = sorted(set(paths), key=len, reverse=True)
        self._phase = ""

    @classmethod
    def for_project(cls, run: Run, project: Project) -> RunLog:
        """Return the log of a project's run, which hides the names of its cases and scans."""
        paths = [str(project.path)]
        for case in project.cases:
            with contextlib.suppress(DyconError, OSError):
                for path in project.image_paths(case.id):
                    paths += [str(path), path.name]
        return cls(run, [case.id for case in project.cases], paths)

    def write(self, event: Event) -> None:
        """Write a line about an event, if it is of interest and the disk allows it."""
        text = self._describe(event)
        if not text:
            return
        text = escape_control_characters(text).replace("\n", " ")
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        path = self._run.log_path
        with contextlib.suppress(OSError):
            if path.exists() and (not path.is_file() or path.stat().st_size > MAX_LOG_BYTES):
                return
            with path.open("a", encoding="utf-8") as file:
                file.write(line)

    def hide_names(self, text: str) -> str:
        """Replace names of cases and paths in a message."""
        for path in self._paths:
            text = text.replace(path, PATH)
        text = _REST_OF_PATH.sub(PATH, text)
        text = _PATH.sub(PATH, text)
        for case_id in self._case_ids:
            text = re.sub(rf"(?<!\w){re.escape(case_id)}(?!\w)", CASE, text)
        return text

    def _describe(self, event: Event) -> str:
        match event:
            case PhaseEvent():
                if event.phase == self._phase:
                    return ""
                self._phase = event.phase
                return describe_phase(event)
            case StartedEvent():
                return (
                    f"Run {event.run}: {event.labeled} labeled, {event.unlabeled} unlabeled and "
                    f"{event.validation} validation cases, {event.device}, {event.precision}"
                )
            case ValidationEvent():
                return f"Validation at step {event.step}: {DICE} {event.mean}"
            case SemiSupervisedEvent():
                return describe_semi_supervised(event)
            case WarningEvent():
                return f"Warning: {self.hide_names(event.message)}"
            case PausedEvent() | ResumedEvent():
                return f"{event.event.capitalize()} at step {event.step}"
            case FailedEvent():
                return f"Failed: {self.hide_names(event.message)}"
            case FinishedEvent() | StoppedEvent():
                return (
                    f"{event.event.capitalize()} at step {event.step} after {event.elapsed_s:.0f} s"
                )
        return ""
