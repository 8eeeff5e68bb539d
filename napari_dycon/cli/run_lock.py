"""Lock a run while a command trains it, record its process, and stop it on Ctrl+C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from napari_dycon.cli.console import print_status
from napari_dycon.errors import BusyError, UserError
from napari_dycon.project.runs.events import Event, StartedEvent

if TYPE_CHECKING:
    from napari_dycon.core.heartbeat import ProcessIdentity
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project


@contextlib.contextmanager
def acquire_run(run: Run) -> Iterator[None]:
    """Lock a run to resume it, so that no other process trains it; clear an earlier stop request.

    The operating system releases the lock when the process ends, even if it is killed.
    """
    from napari_dycon.application.engine_process import is_running, remote_host
    from napari_dycon.core.locks import folder_lock

    busy_error = BusyError(
        f"Run {run.id} is already being trained{remote_host(run)}. Stop it first, or wait."
    )
    with contextlib.ExitStack() as lock_stack:
        try:
            lock_stack.enter_context(folder_lock(run.folder, timeout_s=0.0))
        except BusyError:
            raise busy_error from None
        if is_running(run):
            raise busy_error
        # A run that a window has just created has no state yet; keep a stop request made for it.
        if (run.state_folder / "state.safetensors").exists():
            run.write_control(command="run")
        yield


def with_process_record(
    events: Iterator[Event], project: Project, *, is_acquired: bool
) -> Iterator[Event]:
    """Record in the run's folder which process trains it, so that windows can find it.

    A new run is locked here; a resumed one is already locked by ``acquire_run`` (``is_acquired``).
    """
    from napari_dycon.application.engine_process import mark_process_alive
    from napari_dycon.core.locks import folder_lock

    run: Run | None = None
    get_takeover: Callable[[], ProcessIdentity | None] | None = None
    previous_handler = signal.getsignal(signal.SIGINT)
    resources = contextlib.ExitStack()
    try:
        for event in events:
            if isinstance(event, StartedEvent):
                run = project.runs.get(event.run)
                if not is_acquired:
                    resources.enter_context(folder_lock(run.folder, timeout_s=0.0))
                get_takeover = resources.enter_context(mark_process_alive(run))
                stop_on_interrupt(run)
            yield event
            if (
                run is not None
                and get_takeover is not None
                and (new_owner := get_takeover()) is not None
            ):
                raise BusyError(
                    f"Run {run.id} was taken over by {new_owner.host} while this computer was "
                    "suspended or offline. It continues there and stops here."
                )
    finally:
        signal.signal(signal.SIGINT, previous_handler)
        resources.close()


def stop_on_interrupt(run: Run) -> None:
    """Stop the run and save its weights on the first Ctrl+C; interrupt it on the second."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            run.write_control(command="stop")
        except UserError as error:  # a full disk must not end the run before it has saved
            print_status(f"{error} Press Ctrl+C again to quit without saving.")
            return
        print_status("Stopping and saving the weights. Press Ctrl+C again to quit without saving.")

    signal.signal(signal.SIGINT, stop)
