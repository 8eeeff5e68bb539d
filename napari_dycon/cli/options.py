"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_dycon.application.project_opening import (
    external_folders_message,
    list_untrusted_folders,
)
from napari_dycon.cli.console import print_status
from napari_dycon.errors import UserError

if TYPE_CHECKING:
    from napari_dycon.project.store import Project

ProjectPath = Annotated[Path, typer.Argument(help="Project folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
CasesOption = Annotated[
    str | None,
    typer.Option(
        metavar="IDS",
        help="Case IDs, separated by commas, or @FILE with one per line. Default: all.",
    ),
]
DeviceOption = Annotated[str, typer.Option(metavar="NAME", help="auto, cuda, mps or cpu.")]
ResampleOption = Annotated[
    bool,
    typer.Option(
        "--resample",
        help="Resample DICOM series with irregular slice spacing or gantry tilt to a regular grid.",
    ),
]


def split_names(text: str) -> list[str]:
    """Split names at commas."""
    return [name.strip() for name in text.split(",")]


def parse_case_ids(text: str) -> list[str]:
    """Split case ids at commas, or read one per line from the file of ``@FILE``."""
    if not text.startswith("@"):
        return split_names(text)
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The list of cases {text[1:]} cannot be read: {error}.") from None
    return [line.strip() for line in lines if line.strip()]


def open_project(path: Path) -> Project:
    """Open a project and print warnings about it to standard error.

    Warnings name the sessions that have it open and, for projects that this user did not create on
    this computer, the external folders that it reads from.
    """
    from napari_dycon.project.open_sessions import list_open_sessions
    from napari_dycon.project.store import Project

    project = Project.open(path)
    if folders := list_untrusted_folders(project):
        print_status(external_folders_message(project, folders))
    # Exclude this process and its parent, which may be the session that started the command.
    own_pids = (os.getpid(), os.getppid())
    open_sessions = list_open_sessions(project.path, remove_stale=not project.read_only_reason)
    if others := [
        str(h) for h in open_sessions if not (h.identity.is_local() and h.identity.pid in own_pids)
    ]:
        print_status(
            f"{project.name} is already open: {'; '.join(others)}. Labels may change during this "
            "command."
        )
    return project
