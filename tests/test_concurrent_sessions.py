"""One project in two windows, commands or machines: warnings, and no lost edits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_runs import TINY

from napari_dycon.application import engine_process
from napari_dycon.application.prompts import UserPrompt
from napari_dycon.cli.run_lock import acquire_run, with_process_record
from napari_dycon.core.heartbeat import HEARTBEAT_TIMEOUT_S, ProcessIdentity
from napari_dycon.core.locks import folder_lock
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.errors import BusyError, ProjectError
from napari_dycon.project.open_sessions import (
    FOLDER,
    REMOVE_TIMEOUT_S,
    SessionMarker,
    list_open_sessions,
)
from napari_dycon.project.runs.events import FinishedEvent, StartedEvent
from napari_dycon.project.store import Project
from napari_dycon.session import Session

HOLD = """
import sys, time
from napari_dycon.session import Session
session = Session()
session.open_project(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def start_other_process(project: Project) -> subprocess.Popen[bytes]:
    """Another process that has the project open and is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(project.path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    yield process  # type: ignore[misc]
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_session_shows_who_has_the_project_open(
    project: Project, start_other_process: subprocess.Popen[bytes]
) -> None:
    session, messages = Session(), []
    session.message.connect(lambda level, text: messages.append((level, text)))
    session.open_project(project.path)
    assert session.project is not None
    assert any(
        level == "warning" and "is already open" in text and "on this computer, since" in text
        for level, text in messages
    )


def test_read_only_opening_is_offered(
    project: Project, start_other_process: subprocess.Popen[bytes]
) -> None:
    session = Session()
    asked: list[UserPrompt] = []
    session.prompt_requested.connect(asked.append)
    session.open_project(project.path)
    assert session.project is None  # until there is an answer
    (question,) = asked
    assert [text for text, _ in question.choices] == ["Open read-only", "Open for editing"]
    question.choices[0][1]()
    assert session.project is not None
    assert session.project.read_only_reason
    session.show_case("scan-0")
    with pytest.raises(ProjectError, match="is read-only"):
        session.set_label(np.ones_like(session.require_case().label))
    with pytest.raises(ProjectError, match="is read-only"):
        session.set_case_status("scan-0", "unlabeled")
    with pytest.raises(ProjectError, match="is read-only"):
        session.start_training()
    assert len(list_open_sessions(project.path)) == 1  # read-only sessions have no marker
    question.choices[1][1]()
    assert not session.require_project().read_only_reason
    assert len(list_open_sessions(project.path)) == 2
    session.close_project()
    assert len(list_open_sessions(project.path)) == 1


def test_a_killed_window_does_not_block_the_project(
    project: Project, start_other_process: subprocess.Popen[bytes]
) -> None:
    start_other_process.kill()
    start_other_process.wait()
    assert list((project.path / FOLDER).glob("*.json"))
    assert list_open_sessions(project.path) == []
    assert not list((project.path / FOLDER).glob("*.json"))


def test_a_session_on_another_machine_counts_while_its_marker_is_recent(project: Project) -> None:
    presence = SessionMarker(project.path)
    presence._values["process"]["host"] = "ward-3"
    presence._values["user"] = "anna"
    presence.create()
    (holder,) = list_open_sessions(project.path)
    assert str(holder).startswith("anna on ward-3, since ")
    (file,) = (project.path / FOLDER).glob("*.json")
    old = time.time() - HEARTBEAT_TIMEOUT_S - 5
    os.utime(file, (old, old))
    assert list_open_sessions(project.path) == []
    presence.remove()
    assert not (project.path / FOLDER).exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"process": 3}', '{"process": {"pid": "x"}, "user": 1, "since": null}']
)
def test_a_damaged_session_marker_does_not_block_a_session(project: Project, text: str) -> None:
    (project.path / FOLDER).mkdir()
    (project.path / FOLDER / "x.json").write_text(text)
    assert list_open_sessions(project.path) == []
    Session().open_project(project.path)


def test_session_markers_do_not_recreate_a_removed_folder(project: Project) -> None:
    presence = SessionMarker(project.path)
    shutil.rmtree(project.path)
    presence.create()
    presence.remove()
    assert not project.path.exists()


def test_labels_written_concurrently_by_two_processes_are_all_kept(
    project: Project,
) -> None:
    # Both change project.json (the status) after every label, as two machines on a share would.
    work = (
        "import sys, numpy as np\n"
        "from napari_dycon.project.store import Project\n"
        "project = Project.open(sys.argv[1])\n"
        "shape = project.read_grid(sys.argv[2]).shape\n"
        "for number in range(20):\n"
        "    label = np.full(shape, 255 if number % 2 else 1, np.uint8)\n"
        "    label[0] = 1\n"
        "    project.labels.save(sys.argv[2], label)\n"
    )
    cases = [case.id for case in project.cases][-2:]
    processes = [
        subprocess.Popen([sys.executable, "-c", work, str(project.path), case]) for case in cases
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    opened = Project.open(project.path)
    for case in cases:
        label = opened.labels.read(case)
        assert label is not None
        assert label[0].min() == label[0].max() == 1
        assert opened.get_case(case).status == "in_progress"


def test_commands_report_who_has_the_project_open(
    project: Project,
    start_other_process: subprocess.Popen[bytes],
    run: Callable[..., tuple[int, str, str]],
) -> None:
    code, out, err = run("cases", project.path, "--json")
    assert code == 0
    assert "is already open" in err.replace("\n", " ")
    assert len(json.loads(out)["cases"]) == len(project.cases)


def test_a_run_is_acquired_once(project: Project, run: Callable[..., tuple[int, str, str]]) -> None:
    made = project.runs.create("supervised", make_config("supervised", **TINY).to_dict())
    with folder_lock(made.folder):  # as the process that trains it does
        code, _, err = run("train", project.path, "--resume", made.id)
    assert code == 2
    assert "is already being trained" in err
    code, out, _ = run("train", project.path, "--resume", made.id, "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["event"] == "finished"
    with folder_lock(made.folder, timeout_s=0.0):  # let go of
        pass


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
def test_session_markers_do_not_follow_links_out_of_the_project(
    project: Project, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = outside / "x.json"
    kept.write_text('{"process": {"pid": 1, "host": "h", "started": 1}, "user": "u", "since": 1}')
    os.utime(kept, (1, 1))
    (project.path / FOLDER).symlink_to(outside)
    presence = SessionMarker(project.path)
    presence.create()
    assert list_open_sessions(project.path) == []
    presence.remove()
    assert [path.name for path in outside.iterdir()] == ["x.json"]


@pytest.mark.parametrize("since", ["1e300", "-5", '"now"', "null"])
def test_invalid_times_in_session_markers_do_not_block_a_session(
    project: Project, since: str
) -> None:
    (project.path / FOLDER).mkdir()
    me = json.dumps(ProcessIdentity.current().to_dict())
    (project.path / FOLDER / "x.json").write_text(
        f'{{"process": {me}, "user": "u", "since": {since}}}'
    )
    assert list_open_sessions(project.path) == []
    (project.path / FOLDER / "y.json").write_text("[" * 100_000)
    if hasattr(os, "mkfifo"):
        os.mkfifo(project.path / FOLDER / "z.json")
    assert list_open_sessions(project.path) == []


def test_read_only_viewing_changes_no_file(
    project: Project, start_other_process: subprocess.Popen[bytes]
) -> None:
    start_other_process.kill()
    start_other_process.wait()
    before = sorted((project.path / FOLDER).iterdir())
    Session().open_project(project.path, read_only=True)
    assert sorted((project.path / FOLDER).iterdir()) == before
    with pytest.raises(ProjectError, match="is read-only"):
        list(
            train(
                Project.open(project.path, read_only_reason="of a test"), make_config("supervised")
            )
        )


def test_a_new_run_is_locked_too(project: Project) -> None:
    held = []
    for event in with_process_record(
        train(project, make_config("supervised", **TINY)), project, is_acquired=False
    ):
        if event.event == "step":
            with pytest.raises(BusyError), acquire_run(project.runs.list()[-1]):
                pass
            held.append(event)
    assert held
    with acquire_run(project.runs.list()[-1]):
        pass


def test_errors_inside_a_lock_are_not_reported_as_lock_errors(project: Project) -> None:
    with pytest.raises(BrokenPipeError), folder_lock(project.path):
        raise BrokenPipeError
    with folder_lock(project.path, timeout_s=0.0):
        pass


def test_a_missing_drive_does_not_block_closing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    other = Project.create(tmp_path / "other")
    session, asked = Session(), []
    session.prompt_requested.connect(asked.append)
    session.open_project(project.path)
    session.show_case("scan-0")
    session.require_case().label[0] = 1
    project.path.rename(tmp_path / "away")
    session.open_project(other.path)
    assert asked[-1].choices[0][0] == "Save a recovery copy and continue"
    asked[-1].choices[0][1]()
    assert session.require_project().path == other.path
    assert list((tmp_path / "napari-dycon-recovered-labels").glob("scan-0-*.nii.gz"))


def test_an_unresponsive_drive_does_not_block_the_window(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()
    write = SessionMarker._write
    monkeypatch.setattr(SessionMarker, "_write", lambda self: (back.wait(60), write(self)))
    presence = SessionMarker(project.path)
    begin = time.monotonic()
    presence.create()
    presence.remove()
    assert time.monotonic() - begin < 3 * REMOVE_TIMEOUT_S
    back.set()
    presence._thread.join(10)
    assert not (project.path / FOLDER).exists()  # nothing stays behind once it is back


def test_the_run_of_this_machine_is_preferred_over_a_remote_one(
    project: Project, start_other_process: subprocess.Popen[bytes]
) -> None:
    own, other_run = (
        project.runs.create("dycon", make_config("dycon").to_dict()) for _ in range(2)
    )
    engine_process.write_identity(own, ProcessIdentity.from_pid(start_other_process.pid))
    engine_process.write_identity(other_run, ProcessIdentity(4711, "ward-3", time.time()))
    session = Session()
    session.open_project(project.path)
    assert session.status.run == own.id
    assert not session.run_controller.remote_host


def test_a_temporarily_unavailable_drive_does_not_end_a_run(
    project: Project, start_other_process: subprocess.Popen[bytes]
) -> None:
    run = project.runs.create("dycon", make_config("dycon").to_dict())
    engine_process.write_identity(run, ProcessIdentity.from_pid(start_other_process.pid))
    events = engine_process.follow_training(run)
    assert next(events).event == "idle"
    away = project.path.rename(project.path.with_name("away"))
    end = time.monotonic() + 3 * engine_process.LIVENESS_INTERVAL_S
    while time.monotonic() < end:
        assert next(events).event == "idle"
    away.rename(project.path)
    run.append_event(FinishedEvent())
    wait(lambda: next(events).event == "finished")


def test_a_run_that_has_just_ended_is_not_reported_as_dead(
    project: Project, start_other_process: subprocess.Popen[bytes]
) -> None:
    run = project.runs.create("dycon", make_config("dycon").to_dict())
    run.append_event(StartedEvent())
    run.append_event(FinishedEvent())
    engine_process.write_identity(run, ProcessIdentity.from_pid(start_other_process.pid))
    events = engine_process.follow_training(run)
    assert next(events).event == "idle"
    start_other_process.kill()
    start_other_process.wait()
    reported = [event.event for event in events if event.event != "idle"]
    assert reported == ["finished"]
