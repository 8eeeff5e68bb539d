"""Engine processes: started detached, followed through files, reattached after a restart.

The engine runs in a process of its own, ``python -m napari_dycon ...``: it does not slow the window
down, survives it, frees the GPU when it ends and can be killed. Its events are read from
``events.jsonl``, never from a pipe, so that a run survives the window that started it and a window
opened later can attach to it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from napari_dycon.core.atomic import write_json
from napari_dycon.core.heartbeat import (
    HeartbeatMonitor,
    ProcessIdentity,
    filesystem_time,
    is_recent,
    run_periodically,
)
from napari_dycon.core.sequences import subsample
from napari_dycon.core.untrusted import read_bytes, read_json
from napari_dycon.errors import DyconError
from napari_dycon.project.runs.events import (
    Event,
    FailedEvent,
    FinalEvent,
    IdleEvent,
    PredictionCanceledEvent,
    PredictionFinishedEvent,
    StartedEvent,
    StepEvent,
    ValidationEvent,
    parse_event,
)
from napari_dycon.project.runs.run import Run, merge_resumed_events

MAX_REPLAYED_STEPS = 500  # step events replayed from an earlier part of a run
SIGKILL_RETURN_CODE = -9  # of a process killed by SIGKILL; does not occur on Windows
MAX_LOG_BYTES = 2**24  # of a run's log
_started_processes: list[subprocess.Popen[bytes]] = []
EVENT_INTERVAL_S = 0.1  # between reads of the events file
CANCEL_TIMEOUT_S = 1.5  # after which a prediction that was canceled is terminated
LIVENESS_INTERVAL_S = 1.0  # between liveness checks of a process that was found on the disk


def _launch(
    arguments: Sequence[str], output: Any, errors: Any, inputs: Any = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    # Spinning threads would compete with the window for the same cores.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment["PYTHONUTF8"] = "1"  # paths may hold any letters, also on Windows
    command = [sys.executable, "-m", "napari_dycon", *arguments]
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return subprocess.Popen(
        command,
        stdin=inputs,
        stdout=output,
        stderr=errors,
        env=environment,
        creationflags=flags,
        start_new_session=True,  # ignored on Windows
    )


def launch_training(project: Path, run: Run) -> subprocess.Popen[bytes]:
    """Start the engine on an existing run; its output goes to ``log.txt`` in the run's folder."""
    with (run.folder / "log.txt").open("ab") as log:
        process = _launch(
            ["train", str(project), "--resume", run.id, "--json"], subprocess.DEVNULL, log
        )
    # Kept referenced, since Python warns about a running process that is garbage collected.
    _started_processes[:] = [
        started for started in _started_processes if started.poll() is None
    ] + [process]
    # The process records itself once it has started; until then a reopened window finds this.
    with contextlib.suppress(DyconError):
        write_identity(run, ProcessIdentity.from_pid(process.pid))
    return process


def write_identity(run: Run, identity: ProcessIdentity) -> None:
    """Record which process trains a run, so that windows can find it."""
    write_json(_identity_path(run), identity.to_dict())


def _identity_path(run: Run) -> Path:
    return run.folder / "process.json"


@contextlib.contextmanager
def mark_process_alive(run: Run) -> Iterator[Callable[[], ProcessIdentity | None]]:
    """Record that this process trains a run, with a heartbeat for other machines.

    Yields a function that returns the process that has taken over the run, if any: a computer that
    was suspended counts as dead.
    """
    identity = ProcessIdentity.current()
    takeover: list[ProcessIdentity] = []

    def send_heartbeat() -> None:
        other = read_identity(run)
        if other is not None and other != identity:
            takeover[:] = [other]
        elif run.folder.is_dir():
            write_identity(run, identity)

    write_identity(run, identity)
    try:
        with run_periodically(send_heartbeat):
            yield lambda: takeover[0] if takeover else None
    finally:
        with contextlib.suppress(
            OSError
        ):  # the folder may be gone, and this process is about to end
            if read_identity(run) == identity:
                _identity_path(run).unlink(missing_ok=True)


def is_running(run: Run, *, read_only: bool = False) -> bool:
    """Whether another process trains this run, on this or another machine.

    With ``read_only`` no file is written to determine the time of the file system.
    """
    identity = read_identity(run)
    if identity is not None and not identity.is_local():
        return is_recent(
            _identity_path(run), time.time() if read_only else filesystem_time(run.folder)
        )
    # On Windows the interpreter of a virtual environment has a launcher as parent process,
    # whose id is the one that a window recorded.
    own_pids = (os.getpid(), os.getppid())
    return identity is not None and identity.pid not in own_pids and identity.is_alive()


def remote_host(run: Run) -> str:
    """Describe the other machine that trains a run, as in " on ward-3"; empty for this machine."""
    identity = read_identity(run)
    return "" if identity is None or identity.is_local() else f" on {identity.host}"


def read_identity(run: Run) -> ProcessIdentity | None:
    """Read the recorded process of a run; ``None`` if there is none."""
    try:
        return ProcessIdentity.from_dict(read_json(_identity_path(run)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def follow_training(run: Run, process: subprocess.Popen[bytes] | None = None) -> Iterator[Event]:
    """Yield a run's events as they are written, until its last one.

    If the process ends without a final event, a ``failed`` event is created from its log.
    ``idle`` is yielded whenever there is nothing new.

    Parameters
    ----------
    process : the process that was just started; ``None`` attaches to a process found
        on the disk, and replays its events since the last start, with the earlier curves
    """
    last_check, has_ended = time.monotonic(), False
    identity, watch = read_identity(run), HeartbeatMonitor(_identity_path(run))
    recorded, offset = run.read_events() if process is None else ([], 0)
    history = merge_resumed_events(recorded)
    start_index = max((i for i, e in enumerate(history) if isinstance(e, StartedEvent)), default=0)
    final_events = [event for event in history[start_index:] if isinstance(event, FinalEvent)]
    if not final_events:
        curve_events = [
            e for e in history[:start_index] if isinstance(e, (StepEvent, ValidationEvent))
        ]
        yield from history[start_index : start_index + 1]
        yield from _subsample_steps([*curve_events, *history[start_index + 1 :]])
    while True:
        if process is not None:
            has_ended = process.poll() is not None
        elif time.monotonic() - last_check > LIVENESS_INTERVAL_S:
            # A temporarily disconnected drive must not make the run count as dead.
            identity, last_check = read_identity(run) or identity, time.monotonic()
            has_ended = identity is None or not (
                identity.is_alive() if identity.is_local() else watch.is_recent()
            )
        # Read after the liveness check, so that no event before the end is missed.
        events, offset = run.read_events(offset)
        for event in events:
            final_events = []
            yield event
            if isinstance(event, FinalEvent):
                if process is not None:
                    process.wait()
                return
        if has_ended:
            code = process.returncode if process is not None else None
            # The run may have ended by itself just before it was found.
            yield (
                final_events[-1]
                if final_events
                else FailedEvent(message=_failure_message(run, code))
            )
            return
        yield IdleEvent()
        time.sleep(EVENT_INTERVAL_S)


def _subsample_steps(events: list[Event]) -> list[Event]:
    """Drop most of many step events; the shape of the curve is enough."""
    steps = [i for i, event in enumerate(events) if isinstance(event, StepEvent)]
    kept_indices = set(subsample(steps, MAX_REPLAYED_STEPS)) | set(steps[-1:])
    return [e for i, e in enumerate(events) if not isinstance(e, StepEvent) or i in kept_indices]


def _failure_message(run: Run, code: int | None) -> str:
    if code == SIGKILL_RETURN_CODE:
        return _killed_message("training", "choose a smaller patch; the last checkpoint is kept")
    try:
        data = read_bytes(run.folder / "log.txt", MAX_LOG_BYTES)
        lines = data.decode("utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        lines = []
    last_line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    detail = f" Last log line: {last_line.rstrip('.')}." if last_line else ""
    return f"The training process ended unexpectedly.{detail} The last checkpoint is kept."


def _killed_message(task: str, advice: str) -> str:
    return (
        f"The {task} process was terminated by the system, most likely because memory ran out. "
        f"Close other programs and {advice}."
    )


def run_prediction(
    project: Path,
    run_id: str,
    cases: Sequence[str],
    *,
    preliminary: int = 0,
    canceled: threading.Event | None = None,
) -> Iterator[Event]:
    """Predict cases in a process, and yield its events.

    The last event is ``prediction_finished``, ``prediction_canceled`` or ``failed``. ``idle`` is
    yielded whenever there is nothing new, so that a window that closes does not wait for the next
    case.

    Parameters
    ----------
    preliminary : number of cases, from the first on, that are predicted by one network alone
        before anything else
    canceled : when it is set, the process ends; files of finished cases are kept
    """
    canceled = canceled or threading.Event()
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed below, with the process)
    # The ids may be too long for a command line.
    with tempfile.NamedTemporaryFile(
        "w", suffix=".txt", encoding="utf-8", delete=False
    ) as case_list:
        case_list.write("\n".join(cases))
    process = None
    try:
        arguments = ["predict", str(project), "--run", run_id, "--cases", f"@{case_list.name}"]
        if preliminary:
            arguments += ["--preliminary", str(preliminary)]
        arguments += ["--json", "--end-with-input"]
        process = _launch(arguments, subprocess.PIPE, errors, subprocess.PIPE)
        assert process.stdout is not None
        for line in _poll_lines(process.stdout):
            if canceled.is_set() and process.stdin is not None and not process.stdin.closed:
                _end_prediction(process)
            event = IdleEvent() if line is None else parse_event(line)
            if event is not None:
                yield event
        code = process.wait()
        if canceled.is_set():
            yield PredictionCanceledEvent()
        elif code == 0:
            yield PredictionFinishedEvent()
        else:
            errors.seek(0)
            error_lines = errors.read().decode(errors="replace").strip().splitlines()
            message = error_lines[-1] if error_lines else "The prediction ended unexpectedly."
            if process.returncode == SIGKILL_RETURN_CODE:
                message = _killed_message("prediction", "predict again; what was written is kept")
            yield FailedEvent(message=message)
    finally:
        if process is not None:
            _end_prediction(process)
        errors.close()
        with contextlib.suppress(OSError):
            os.unlink(case_list.name)


def _end_prediction(process: subprocess.Popen[bytes]) -> None:
    """Let a prediction process end, and terminate it if it does not; close its input.

    The end of its input tells it to complete or remove the files that it is writing, and to end.
    """
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(CANCEL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.terminate()


def _poll_lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the lines of a pipe, and ``None`` after each interval without one."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # None is the end

    def read_lines() -> None:
        with stream:
            for line in stream:
                lines.put(line)
        lines.put(None)

    # Pipes cannot be polled on Windows, so a thread reads them.
    threading.Thread(target=read_lines, name="prediction events", daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=EVENT_INTERVAL_S)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line
