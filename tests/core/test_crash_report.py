"""Unexpected errors become a redacted report and a message with its path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_dycon.application.task_runner import InlineTaskRunner
from napari_dycon.core import crash_report
from napari_dycon.core.user_dirs import STATE_DIR_ENV
from napari_dycon.errors import UserError
from napari_dycon.project.store import Project
from napari_dycon.session import Session

PRIVATE = [
    "[Errno 5] Input/output error: '/data/Jane Doe/scan.nii.gz'",
    "no such file: C:\\Users\\jane\\Doe_1961-02-03.dcm",
    "bad header in Doe_Jane.nii.gz, patient DOE^JANE born 19610203, id 4711-0815-22",
    'cannot parse "Jane Doe" in /data/jane/',
    "cannot read Jane Doe scan.nii",
    "No such folder /data/Jane Doe",
    "case Jane_Doe has no label",
    "Döe, Jane (1961)",
]


@pytest.fixture
def state_folder_of_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The program's own folder, elsewhere."""
    monkeypatch.setenv(STATE_DIR_ENV, str(tmp_path / "own"))
    return tmp_path / "own"


def make_raised_error(text: str) -> Exception:
    try:
        try:
            raise OSError(text)
        except OSError as error:
            raise ValueError(f"while reading {text}") from error
    except ValueError as error:
        return error


@pytest.mark.parametrize("text", PRIVATE)
def test_a_report_contains_no_names(state_folder_of_test: Path, text: str) -> None:
    said = crash_report.describe_error(make_raised_error(text))
    (report,) = (state_folder_of_test / "reports").iterdir()
    assert str(report) in said
    written = report.read_text(encoding="utf-8")
    assert "OSError" in written
    assert "ValueError: while reading" in written
    assert "test_crash_report.py" in written
    for private in ("jane", "doe", "1961", "0815"):
        assert private not in written.lower()


def test_plain_words_of_messages_are_kept() -> None:
    kept = {
        "cannot read Smith John scan.nii": "cannot read … … …",
        "case Smith_John has no label": "case … has no label",
        "No such folder /data/Smith John": "… such folder … …",
        "Müller, Anna (1970)": "…, … (…)",
        "index 3 is out of bounds (3, 12)": "index 3 is out of bounds (3, 12)",
    }
    assert {text: crash_report.redact(text) for text in kept} == kept


def test_the_number_of_reports_is_limited(state_folder_of_test: Path) -> None:
    for _ in range(crash_report.MAX_REPORTS + 5):
        crash_report.write_crash_report(make_raised_error("x"))
    assert len(list((state_folder_of_test / "reports").iterdir())) <= crash_report.MAX_REPORTS


def test_the_error_is_shown_if_no_report_can_be_saved(state_folder_of_test: Path) -> None:
    state_folder_of_test.write_text("a file in the way")
    assert "no report could be saved" in crash_report.describe_error(make_raised_error("x"))


def test_describing_an_error_never_fails(state_folder_of_test: Path) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert "OddError" in crash_report.describe_error(OddError())


def test_user_errors_are_shown_unchanged(state_folder_of_test: Path) -> None:
    assert crash_report.describe_error(UserError("Choose a case.")) == "Choose a case."
    assert not state_folder_of_test.exists()


def test_a_command_that_fails_unexpectedly_prints_the_path_of_its_report(
    state_folder_of_test: Path,
    project: Project,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("in case Jane_Doe.nii.gz")

    monkeypatch.setattr(Project, "open", broken)
    code, out, err = run("cases", project.path)
    assert (code, out) == (1, "")
    (report,) = (state_folder_of_test / "reports").iterdir()
    assert str(report) in err.replace("\n", "")
    assert "Traceback" not in err
    assert "ZeroDivisionError: in case …" in report.read_text(encoding="utf-8")


def test_a_session_reports_unexpected_errors(state_folder_of_test: Path, project: Project) -> None:
    class Broken(InlineTaskRunner):
        def submit(self, work: Any, done: Any, failed: Any) -> None:
            failed(RuntimeError("Jane_Doe.nii"))

    session, said = Session(Broken()), []
    session.message.connect(lambda level, text: said.append((level, text)))
    session.open_project(project.path)
    ((level, text),) = said
    assert level == "error"
    assert "reports" in text
    assert "Jane" not in text


@pytest.mark.gui
def test_a_slot_that_fails_in_the_window_shows_no_traceback(
    state_folder_of_test: Path,
) -> None:
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("no display; run under xvfb-run")
    # A process of its own: what is tested is the handler of errors while napari's loop is at work.
    code = """
import napari
from qtpy.QtCore import QTimer
from napari.utils.notifications import notification_manager
from napari_dycon.widgets.app import make_window

viewer, panel = make_window()
panel.session.message.connect(lambda level, text: print(level, text))
def slot():
    panel.data.open_path(None)          # an AttributeError inside this package
def begin():                            # the loop runs, also where all of it takes long
    QTimer.singleShot(1500, slot)
    QTimer.singleShot(4000, viewer.close)
QTimer.singleShot(0, begin)
napari.run()
for record in notification_manager.records:
    print(type(record).__name__, record.severity, record.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ErrorNotification" not in done.stdout
    assert "An unexpected error occurred" in done.stdout
    assert len(list((state_folder_of_test / "reports").iterdir())) == 1
