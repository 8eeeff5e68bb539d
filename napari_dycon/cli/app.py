"""The ``napari-dycon`` command line program, for scripts and machines without a display.

Results go to standard output (with ``--json`` as JSON), everything else to standard error. Exit
code 0 is success, 2 a user error and 1 a failure, both reported in one line.
"""

from __future__ import annotations

import io
import sys
import warnings
from typing import Annotated

import typer

from napari_dycon import __version__
from napari_dycon.cli.console import print_status
from napari_dycon.cli.demo import demo
from napari_dycon.cli.evaluate import evaluate
from napari_dycon.cli.export import export
from napari_dycon.cli.help import Command, Group, build_help
from napari_dycon.cli.predict import predict
from napari_dycon.cli.project import cases, gui, new
from napari_dycon.cli.runs import runs
from napari_dycon.cli.train import train
from napari_dycon.core.crash_report import describe_error
from napari_dycon.errors import DyconError

INTERRUPT_EXIT_CODE = 130  # 128 + SIGINT, as in shells

app = typer.Typer(
    name="napari-dycon",
    cls=Group,
    help="Annotate 3D scans, train a segmentation network on labeled and unlabeled scans (DyCON), "
    "and review its uncertainty.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command; report an error in one line on standard error and set the exit code."""
    # Warnings of libraries are not useful to users of the command.
    warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):  # names may contain any Unicode character
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        code = app(standalone_mode=False)  # typer returns an exit code, also that of Ctrl+C
        if code == INTERRUPT_EXIT_CODE:
            raise KeyboardInterrupt
        if isinstance(code, int):
            sys.exit(code)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except typer.Abort:
        sys.exit(1)
    except KeyboardInterrupt:
        print_status("Stopped.")
        sys.exit(1)
    except DyconError as error:
        print_status(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - every failure becomes one line
        # typer's own usage errors carry a message and the exit code 2.
        if hasattr(error, "format_message"):
            print_status(error.format_message())
            sys.exit(getattr(error, "exit_code", 2))
        print_status(describe_error(error))
        sys.exit(1)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(  # noqa: D103 - a docstring would replace the help text of the program
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


for command in (demo, gui, new, cases, train, runs, predict, evaluate, export):
    app.command(cls=Command, help=build_help(command))(command)
