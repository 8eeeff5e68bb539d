"""Help texts of the commands: one example each, and no types after flags."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from typer import Context

EXAMPLES = {
    "demo": "napari-dycon demo --out dycon-demo --headless",
    "gui": "napari-dycon gui my-project",
    "new": "napari-dycon new my-project --images scans --labels labels --classes liver,tumor",
    "cases": "napari-dycon cases my-project --validation scan-07",
    "train": "napari-dycon train my-project --time-limit 10m",
    "runs": "napari-dycon runs my-project",
    "predict": "napari-dycon predict my-project --images new-scans --out masks",
    "evaluate": "napari-dycon evaluate masks reference-masks",
    "export": "napari-dycon export my-project --format nifti --out masks",
}


class Command(TyperCommand):
    """A command whose help shows arguments in capitals, and flags without a type."""

    def get_params(self, ctx: Context) -> list[Any]:  # type: ignore[override]
        """Return the parameters, with the words that the help shows for them."""
        return _name_parameters(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Context) -> list[str]:  # type: ignore[override]
        """Return the pieces of the line of usage, with required arguments without braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class Group(TyperGroup):
    """The program itself; see ``Command``."""

    def get_params(self, ctx: Context) -> list[Any]:  # type: ignore[override]
        """Return the parameters, with the words that the help shows for them."""
        return _name_parameters(super().get_params(ctx))


def build_help(command: Callable[..., None]) -> str:
    """Return the description of a command, one line per paragraph, and its example."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
    return "\n\n".join([*lines, f"Example: {EXAMPLES[command.__name__]}"])


def _name_parameters(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if parameter.metavar is None and isinstance(parameter, TyperArgument):
            parameter.metavar = str(parameter.name).upper()
        elif parameter.metavar is None and isinstance(parameter, TyperOption) and parameter.is_flag:
            parameter.metavar = ""
    return parameters
