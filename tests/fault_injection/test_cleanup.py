"""Files left by dead processes: incomplete lines, temporary files, locks, process ids."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.kill_loops import backdate_files
from helpers.tiny_runs import TINY

from napari_dycon import io
from napari_dycon.application import engine_process
from napari_dycon.application.training.history import read_training_history
from napari_dycon.cli.run_lock import stop_on_interrupt
from napari_dycon.core.atomic import temporary_path, write_json
from napari_dycon.core.cleanup import clean_project
from napari_dycon.core.heartbeat import ProcessIdentity
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.training.run import train
from napari_dycon.errors import DyconError, ProjectError
from napari_dycon.project.manifest import ManifestStore
from napari_dycon.project.runs.events import CheckpointEvent, StartedEvent, StepEvent
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project
from napari_dycon.session import Session


@pytest.fixture
def run_with_incomplete_line(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.append_event(StepEvent(step=1))
    with run.events_path.open("ab") as file:
        file.write(b'{"event": "step", "st')
    return run


def test_an_incomplete_line_does_not_affect_the_next_event(run_with_incomplete_line: Run) -> None:
    run_with_incomplete_line.append_event(StartedEvent())
    run_with_incomplete_line.append_event(StepEvent(step=2))
    assert [e.event for e in run_with_incomplete_line.read_events()[0]] == [
        "step",
        "started",
        "step",
    ]


@contextlib.contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """No file can grow beyond this size, as on a disk that is full in the middle of a write."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_events_are_written_atomically(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.append_event(StartedEvent())
    before = run.events_path.read_bytes()
    with limit_file_size(len(before) + 5), pytest.raises(OSError, match=r"File too large|No space"):
        run.append_event(StepEvent(step=1))
    assert run.events_path.read_bytes() == before


def test_repeated_steps_count_once(project: Project) -> None:
    run = project.runs.create("dycon", make_config("dycon").to_dict())

    def step(number: int, loss: float) -> StepEvent:
        return StepEvent(step=number, loss_terms={"supervised": loss})

    for event in (
        StartedEvent(labeled=3, resumed_from_step=0), step(1, 1.0), CheckpointEvent(step=1),
        step(2, 2.0), step(3, 3.0), StartedEvent(labeled=3, resumed_from_step=1), step(2, 2.5),
        step(3, 3.5),
    ):  # fmt: skip
        run.append_event(event)
    (found,) = read_training_history(project)
    assert found.loss == [(1.0, 1.0), (2.0, 2.5), (3.0, 3.5)]
    assert len(run.read_events()[0]) == 8  # what happened stays on record


def test_only_stale_temporary_files_are_removed(project: Project, tmp_path: Path) -> None:
    run = project.runs.create("dycon", {})
    (run.state_folder / "labels").mkdir(parents=True)
    places = [
        project.path / "project.json",
        project.path / "labels" / "scan-0.nii.gz",
        run.weights_path,
        run.state_folder / "labels" / "scan-0.npy",
        project.cache_folder / "scan-0-abc.npy",
    ]
    project.cache_folder.mkdir()
    old, young = ([temporary_path(place) for place in places] for _ in range(2))
    for path in (*old, *young):
        path.write_bytes(b"half")
    folder = temporary_path(run.folder / "staged")
    folder.mkdir()
    (folder / "part").write_bytes(b"half")
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    foreign = [project.path / name for name in (".notes.tmp.txt", ".abc.tmp.x", "x.tmp.y", ".tmp")]
    for path in foreign:
        path.write_text("mine")
    link = temporary_path(project.path / "labels" / "link")
    link.symlink_to(outside)
    backdate_files([*old, *foreign, folder, *(p for p in places if p.exists()), outside])
    session = Session()
    session.open_project(project.path)
    assert not any(path.exists() for path in (*old, folder))
    assert all(path.exists() for path in (*young, *foreign, outside))
    assert outside.read_text() == "mine"
    assert project.labels.path("scan-0").exists()
    backdate_files(young)
    (folder).mkdir()
    backdate_files([folder])
    (folder / "part").write_bytes(b"written just now")
    backdate_folder(folder)
    assert set(clean_project(project.path)) == set(young)
    assert folder.exists()


def backdate_folder(folder: Path) -> None:
    past = time.time() - 3 * 3600
    os.utime(folder, (past, past))


def test_unfinished_files_are_never_shown_or_exported(project: Project, tmp_path: Path) -> None:
    from napari_dycon.exports.options import ExportOptions
    from napari_dycon.exports.registry import export

    run = project.runs.create("dycon", {})
    mask = np.ones(project.read_grid("scan-4").shape, np.uint8)
    project.predictions.write(run.id, "scan-4", mask, mask * 0.5, mask * 0.5)
    for path in (project.labels.path("scan-5"), project.predictions.path(run.id, "scan-5")):
        temporary_path(path).write_bytes(b"half")
    (project.path / "runs" / ".12345678.tmp.002-dycon").mkdir()
    (project.path / "runs" / "003-dycon").mkdir()  # killed before its settings were there
    assert [r.id for r in project.runs.list()] == [run.id]
    assert project.predictions.list_run_ids("scan-5") == []
    options = ExportOptions(include_unreviewed=True)
    names = {path.name for path in export(project, "nifti", tmp_path / "out", options).written}
    assert names == {f"scan-{n}.nii.gz" for n in (0, 1, 2, 4)}
    assert project.runs.create("dycon", {}).id == "004-dycon"


def test_the_lock_of_a_dead_process_is_released(project: Project) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from napari_dycon.core.locks import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(project.path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.communicate()
    begin = time.monotonic()
    project.set_split("scan-0", "validation")
    assert time.monotonic() - begin < 5.0


def test_a_reused_process_id_is_not_mistaken_for_the_old_process(project: Project) -> None:
    run = project.runs.create("dycon", make_config("dycon", **TINY).to_dict())
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        real = ProcessIdentity.from_pid(other.pid)
        engine_process.write_identity(run, ProcessIdentity(real.pid, real.host, real.started - 500))
        assert not engine_process.is_running(run)
    finally:
        other.kill()
        other.wait()
    engine_process.write_identity(run, real)
    assert not engine_process.is_running(run)  # dead


def test_a_stroke_that_was_erased_stays_erased(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label was saved, its status not: the next save must not take it for another window's."""
    session = Session()
    session.open_project(project.path)
    session.show_case("scan-0")
    reported: list[str] = []
    session.message.connect(lambda _, text: reported.append(text))
    session.case.label[0, 0, :2] = 255  # in progress from now on

    def refuse(*_: Any, **__: Any) -> None:
        raise ProjectError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(ManifestStore, "update_case", refuse)
        with pytest.raises(ProjectError, match="full"):
            session.flush()
    assert project.labels.read("scan-0")[0, 0, 0] == 255
    session.case.label[0, 0, :2] = 0
    session.case.label[0, 0, 1] = 1
    session.flush()
    assert project.labels.read("scan-0")[0, 0, :2].tolist() == [0, 1]
    assert not any("another session" in text for text in reported)


def test_a_first_label_is_always_written_with_its_status(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.ones(project.read_grid("scan-4").shape, np.uint8)
    states = []
    write = io.write_mask

    def watched(*arguments: Any, **named: Any) -> None:
        states.append(Project.open(project.path).get_case("scan-4").status)
        write(*arguments, **named)

    monkeypatch.setattr(io, "write_mask", watched)
    project.labels.save("scan-4", label)
    assert states == ["labeled"]
    assert Project.open(project.path).get_case("scan-4").status == "labeled"


def test_a_first_label_does_not_wait_for_its_status(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ProjectError("locked")

    monkeypatch.setattr(ManifestStore, "update_case", refuse)
    label = np.ones(project.read_grid("scan-4").shape, np.uint8)
    with pytest.raises(ProjectError, match="locked"):
        project.labels.save("scan-4", label)
    assert np.array_equal(project.labels.read("scan-4"), label)


def test_a_case_is_shown_if_its_preview_request_fails(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session()
    session.open_project(project.path)
    session.run_controller._run = project.runs.create("dycon", {})

    def refuse(*_: Any, **__: Any) -> None:
        raise ProjectError("The disk is full.")

    monkeypatch.setattr(Run, "write_control", refuse)
    shown: list[Any] = []
    session.case_shown.connect(shown.append)
    session.show_case("scan-1")
    assert [view.id for view in shown] == ["scan-1"]


def test_ctrl_c_on_a_full_disk_does_not_end_the_run_before_saving(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import signal

    def refuse(*_: Any, **__: Any) -> None:
        raise ProjectError("The disk is full.")

    monkeypatch.setattr(Run, "write_control", refuse)
    before = signal.getsignal(signal.SIGINT)
    try:
        stop_on_interrupt(project.runs.create("dycon", {}))
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_that_cannot_start_leaves_no_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_dycon.project.runs import run_store

    def refuse(*_: Any) -> None:
        raise ProjectError("The disk is full.")

    monkeypatch.setattr(run_store, "write_json", refuse)
    with pytest.raises(DyconError, match="full"):
        project.runs.create("dycon", {})
    assert list((project.path / "runs").iterdir()) == []


def test_a_resumed_run_keeps_the_benchmarked_precision(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_dycon.engine import device

    monkeypatch.setattr(device, "is_bfloat16_faster", lambda: False)
    config = make_config("dycon", **(TINY | {"precision": "auto", "intervals.checkpoint_s": 0.0}))
    events = train(project, config)
    for event in events:
        if event.event == "checkpoint":
            events.close()  # type: ignore[attr-defined]
            break
    monkeypatch.setattr(device, "is_bfloat16_faster", lambda: True)
    run = project.runs.list()[-1]
    again = list(train(project, TrainConfig.from_dict(run.read_config()), run))
    assert again[0].precision == "float32"


def test_a_killed_edit_leaves_the_old_project(project: Project) -> None:
    temporary_path(project.path / "project.json").write_text('{"schema_version": 1, "na')
    assert Project.open(project.path).name == project.name
    write_json(project.path / "other.json", {"a": 1})
    assert json.loads((project.path / "other.json").read_text()) == {"a": 1}
