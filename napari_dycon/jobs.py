"""Engine processes: started detached, followed through files, found again after a restart.

The engine runs in a process of its own, ``python -m napari_dycon ...``: it cannot slow the window
down, survives it, frees the GPU when it ends and can be killed. Its events are read from
``events.jsonl``, never from a pipe, so that a run outlives the window that started it and a window
opened later attaches in the same way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from napari_dycon.project.atomic import ProcessIdentity
from napari_dycon.project.runs import Run

Event = dict[str, Any]
LAST_EVENTS = frozenset({"finished", "stopped", "failed"})
POLL = 0.1  # seconds between looks at the events file
START_GRACE = 60.0  # seconds a process may take until it has said who it is


def _launch(arguments: Sequence[str], output: Any, errors: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    # Threads that spin while they wait would fight with the window for the same cores.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = [sys.executable, "-m", "napari_dycon", *arguments]
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=environment,
            creationflags=flags,
        )
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        env=environment,
        start_new_session=True,
    )


def launch_training(project: Path, run: Run) -> subprocess.Popen[bytes]:
    """Start the engine on a run that exists; its messages go to ``log.txt`` in the run's folder."""
    with (run.folder / "log.txt").open("ab") as log:
        return _launch(
            ["train", str(project), "--resume", run.id, "--json"], subprocess.DEVNULL, log
        )


def is_running(run: Run) -> bool:
    """Whether a process is at work on this run, here or (as far as known) elsewhere."""
    identity = read_identity(run)
    return identity is not None and identity.is_alive()


def read_identity(run: Run) -> ProcessIdentity | None:
    """Who works on a run, as its process wrote it down; ``None`` when nobody does."""
    try:
        return ProcessIdentity.from_dict(
            json.loads((run.folder / "process.json").read_text(encoding="utf-8"))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def follow_training(
    run: Run, process: subprocess.Popen[bytes] | None = None, offset: int = 0
) -> Iterator[Event]:
    """Yield a run's events as they are written, until its last one.

    When the process ends without a last event, a ``failed`` one is made up from its messages.
    ``waiting`` is yielded whenever there is nothing new.

    Parameters
    ----------
    process : the process that was just started; ``None`` attaches to one found on the disk
    offset : where in ``events.jsonl`` to begin
    """
    begin = time.monotonic()
    while True:
        ended = process.poll() is not None if process is not None else not is_running(run)
        # Read after looking whether it lives: what it wrote before its end is not missed.
        events, offset = run.read_events(offset)
        for event in events:
            yield event
            if event.get("event") in LAST_EVENTS:
                if process is not None:
                    process.wait()
                return
        if ended and (process is not None or time.monotonic() - begin > 1.0):
            yield {"event": "failed", "message": _last_words(run)}
            return
        yield {"event": "waiting"}
        time.sleep(POLL)


def _last_words(run: Run) -> str:
    try:
        lines = (run.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    detail = f" Its last words: {said}" if said else ""
    return f"The training process ended unexpectedly.{detail} The last checkpoint is kept."


def predict_process(project: Path, run_id: str, cases: Sequence[str]) -> Iterator[Event]:
    """Predict cases in a process; its events end with ``predicted all`` or ``failed``."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed below, with the process)
    process = _launch(
        ["predict", str(project), "--run", run_id, "--cases", ",".join(cases), "--json"],
        subprocess.PIPE,
        errors,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
        if process.wait() == 0:
            yield {"event": "predicted all"}
        else:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            message = said[-1] if said else "The prediction ended unexpectedly."
            yield {"event": "failed", "message": message}
    finally:
        if process.poll() is None:
            process.terminate()
        process.stdout.close()
        errors.close()
