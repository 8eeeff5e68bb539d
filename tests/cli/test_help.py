"""Help of the commands, and the lines that they print."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from napari_dycon.cli import app
from napari_dycon.cli.help import EXAMPLES
from napari_dycon.engine.config import make_config
from napari_dycon.errors import ConfigError
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]
ROOT: Any = typer.main.get_command(app.app)


@pytest.mark.parametrize("name", ["", *ROOT.commands])
def test_help_shows_no_types_of_flags_and_no_braces(
    name: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = run(*name.split(), "--help")
    assert code == 0
    text = out + err
    assert "bool" not in text
    assert "{" not in text
    if name:
        assert f"Example: {EXAMPLES[name]}" in text
    if name in ("train", "export", "cases"):
        assert "[OPTIONS] PROJECT" in text


@pytest.mark.parametrize("name", ROOT.commands)
def test_examples_are_accepted(name: str) -> None:
    """The example of a command names options that it has, and all that are required."""
    program, command, *arguments = shlex.split(EXAMPLES[name])
    assert (program, command) == ("napari-dycon", name)
    ROOT.commands[name].make_context(name, arguments)


def test_a_missing_argument_is_named_as_in_the_help(run: Run) -> None:
    code, _, err = run("cases")
    assert (code, err.strip()) == (2, "Missing argument 'PROJECT'.")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("learningrate", "Did you mean optimizer.learning_rate?"),
        ("batch.patchsize", "Did you mean batch.patch_size?"),
        ("color", "The documentation lists all settings under Reference, Configuration."),
    ],
)
def test_an_unknown_setting_is_answered_with_similar_names(name: str, answer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config("dycon", **{name: 1})
    assert str(caught.value).startswith(f"Unknown setting {name}. ")
    assert answer.removesuffix("?") in str(caught.value)
    assert len(str(caught.value)) < 200
    with pytest.raises(ConfigError) as caught:
        make_config("dycon", **{"x" * 5000: 1})
    assert len(str(caught.value)) < 200


def test_an_export_names_the_file_that_it_wrote(
    run: Run, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("export", project.path, "--format", "report", "--out", "rep8")
    names = [Path("rep8") / name for name in ("report.html", "cases.csv")]
    assert (code, out) == (0, "".join(f"Wrote {name}\n" for name in names))
    code, out, _ = run("export", project.path, "--format", "nnunet", "--out", "raw")
    assert (code, out) == (0, f"Wrote {Path('raw') / 'Dataset001_project'}\n")
