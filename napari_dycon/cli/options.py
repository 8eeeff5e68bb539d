"""What the commands share: options, times, lists of cases, a run's process and its interruption."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dycon.application.project_opening import external_folders_message
from napari_dycon.cli.console import print_status
from napari_dycon.errors import BusyError, UserError

if TYPE_CHECKING:
    from napari_dycon.core.heartbeat import ProcessIdentity
    from napari_dycon.project.importing.discovery import Scan
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project

Event = dict[str, Any]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON on standard output.")]
RESAMPLE_HELP = "Interpolate DICOM slices that are uneven or tilted to even ones."
ProjectPath = Annotated[Path, typer.Argument(help="Folder of the project.")]


def parse_duration(text: str) -> float:
    """Turn "90", "90s", "10m" or "1.5h" into seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise UserError(
            f"'{text}' is no time to train for; expected more than 0, such as 90s, 10m or 2h."
        )
    return seconds


def open_project(path: Path) -> Project:
    """Open a project, and tell on standard error what a person should know of it first.

    That is who has it open at this moment, and where one that this user did not make here reads
    from.
    """
    from napari_dycon.project.open_sessions import list_open_sessions
    from napari_dycon.project.store import Project
    from napari_dycon.project.trusted_projects import is_trusted

    project = Project.open(path)
    if not is_trusted(project.path) and (folders := project.external_folders()):
        print_status(external_folders_message(project, folders))
    # Whoever started this command knows, and so does a script that calls it in its own process.
    own_pids = (os.getpid(), os.getppid())
    open_sessions = list_open_sessions(project.path, remove_stale=not project.read_only_reason)
    if others := [
        str(h) for h in open_sessions if not (h.identity.is_local() and h.identity.pid in own_pids)
    ]:
        print_status(
            f"{project.name} is open already: {'; '.join(others)}. Labels may change meanwhile."
        )
    return project


def parse_case_ids(text: str) -> list[str]:
    """Ids separated by commas, or one a line of the file ``@FILE``."""
    if not text.startswith("@"):
        return [name.strip() for name in text.split(",")]
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The list of cases {text[1:]} cannot be read: {error}.") from None
    return [line.strip() for line in lines if line.strip()]


@contextlib.contextmanager
def acquire_run(run: Run) -> Iterator[None]:
    """Hold a run to go on with it: nobody else works on it, and no old Stop ends it at once.

    The lock is the system's: it ends with the process that holds it, however that ends.
    """
    from napari_dycon.application.engine_process import is_running, remote_host
    from napari_dycon.core.locks import folder_lock

    busy_error = BusyError(
        f"Run {run.id} is being trained already{remote_host(run)}. Stop it first, or wait."
    )
    with contextlib.ExitStack() as lock_stack:
        try:
            lock_stack.enter_context(folder_lock(run.folder, timeout_s=0.0))
        except BusyError:
            raise busy_error from None
        if is_running(run):
            raise busy_error
        # A run that a window has just made has no state yet, and what its user asks for counts.
        if (run.state_folder / "state.safetensors").exists():
            run.write_control(command="run")
        yield


def check_output_folder(files: list[Scan], folder: Path, project: Project) -> None:
    """Refuse a folder in which results would take the place of scans, labels or predictions."""
    from napari_dycon.exports.overwrite_guard import check_folder, check_target, list_scan_files
    from napari_dycon.io import get_scan_file

    check_folder(folder, project)
    scan_paths = list_scan_files(project) | {
        get_scan_file(p).resolve() for scan in files for p in scan.images
    }
    for scan in files:
        check_target(folder / f"{scan.name}.nii.gz", scan_paths)


def with_process_record(
    events: Iterator[Event], project: Project, *, is_acquired: bool
) -> Iterator[Event]:
    """Write into the run's folder which process works on it, so that windows can find it.

    A new run is held from here on, as ``acquire_run`` holds one that is gone on with (``held``).
    """
    from napari_dycon.application.engine_process import mark_process_alive
    from napari_dycon.core.locks import folder_lock

    run: Run | None = None
    get_takeover: Callable[[], ProcessIdentity | None] | None = None
    previous_handler = signal.getsignal(signal.SIGINT)
    resources = contextlib.ExitStack()
    try:
        for event in events:
            if event["event"] == "started":
                run = project.runs.get(event["run"])
                if not is_acquired:
                    resources.enter_context(folder_lock(run.folder, timeout_s=0.0))
                get_takeover = resources.enter_context(mark_process_alive(run))
                _stop_on_interrupt(run)
            yield event
            if (
                run is not None
                and get_takeover is not None
                and (new_owner := get_takeover()) is not None
            ):
                raise BusyError(
                    f"Run {run.id} was taken over on {new_owner.host} while this computer was away; it "
                    "goes on there, and ends here."
                )
    finally:
        signal.signal(signal.SIGINT, previous_handler)
        resources.close()


def reject_conflicting_options(context: typer.Context) -> None:
    """A run that is resumed keeps its settings; one given beside it would be lost silently."""
    allowed = ("project", "resume", "steps", "time_limit", "as_json")
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            raise UserError(
                f"{parameter.opts[0]} cannot be changed with --resume: the run keeps its settings. "
                "Leave it out, or --resume; --start-from makes a new run from old weights."
            )


def _stop_on_interrupt(run: Run) -> None:
    """Let a first Ctrl+C end the run as Stop in the window does; a second one ends it at once."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            run.write_control(command="stop")
        except UserError as error:  # a full disk must not end the run before it has saved
            print_status(f"{error} Press Ctrl+C again to end without saving.")
            return
        print_status("Stopping: saving the weights. Press Ctrl+C again to give up on that.")

    signal.signal(signal.SIGINT, stop)
