"""Full disks, and folders that are read-only or removed: one message, and no data is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.kill_workload import draw_number
from helpers.small_disk import Disk
from helpers.tiny_runs import TINY
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_dycon import io
from napari_dycon.application.labels import autosave_state
from napari_dycon.core.atomic import write_bytes
from napari_dycon.engine.checkpoints import safetensors_io
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.preprocessing import save_array
from napari_dycon.engine.training import retry
from napari_dycon.engine.training.run import train
from napari_dycon.errors import DyconError, EngineError, ProjectError
from napari_dycon.exports.registry import export
from napari_dycon.project.store import Project
from napari_dycon.session import Session

LEAVE = (0, 4096, 8192, 3 * 4096, 5 * 4096, 9 * 4096, 20 * 4096, 60 * 4096)


def make_tiny_config(**changes: Any) -> TrainConfig:
    return make_config("dycon", **(TINY | {"intervals.checkpoint_s": 0.0} | changes))


@pytest.fixture
def short_retry_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RETRY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(retry, "RETRY_PAUSE_S", 0.05)
    monkeypatch.setattr(autosave_state, "RETRY_INTERVAL_S", 0.0)


def paint_label(project: Project) -> Session:
    session = Session()
    session.open_project(project.path)
    session.show_case("scan-0")
    session.case.label[:] = draw_number(1, session.case.label.shape)
    return session


def check_edits_survive(session: Session, trouble: str, repair: Callable[[], object]) -> None:
    """Saving fails with a reason and harms nothing; once there is room, it comes by itself."""
    reported: list[str] = []
    session.message.connect(lambda _, text: reported.append(text))
    path = session.project.labels.path("scan-0")
    before = path.read_bytes() if path.exists() else None
    for save in (session.save_label, session.flush):
        with pytest.raises(ProjectError, match=trouble):
            save()
    assert session.has_unsaved_changes
    if before is not None and path.exists():
        assert path.read_bytes() == before
    repair()
    session.save_label()
    assert "now been saved" in reported[-1]
    kept = Project.open(session.project.path).labels.read("scan-0")
    assert np.array_equal(kept, draw_number(1, kept.shape))


@pytest.mark.usefixtures("short_retry_intervals")
def test_labels_survive_a_full_disk(project_on_disk: Project, disk: Disk) -> None:
    session = paint_label(project_on_disk)
    disk.fill()
    check_edits_survive(session, "No space left", disk.empty)


@pytest.mark.usefixtures("short_retry_intervals")
def test_labels_survive_a_missing_folder(project: Project) -> None:
    session, away = paint_label(project), project.path.with_name("away")
    project.path.rename(away)

    def back() -> None:
        assert not project.path.exists(), "recreated when the folder is available again"
        away.rename(project.path)

    check_edits_survive(session, "is gone", back)


@pytest.mark.usefixtures("short_retry_intervals")
def test_labels_survive_a_folder_that_becomes_read_only(read_only_project: Project) -> None:
    import subprocess

    def remount(how: str) -> None:
        subprocess.run(
            ["mount", "-o", f"remount,{how},bind", str(read_only_project.path)], check=True
        )

    remount("rw")
    session = paint_label(read_only_project)
    remount("ro")
    check_edits_survive(session, "Read-only", lambda: remount("rw"))


def test_a_project_in_a_read_only_folder_opens_read_only(read_only_project: Project) -> None:
    session, reported = Session(), []
    session.message.connect(lambda _, text: reported.append(text))
    session.open_project(read_only_project.path)
    assert any("read-only: its folder is not writable" in text for text in reported)
    session.show_case("scan-0")
    assert session.edit_blocked_reason()
    session.save_label()
    session.close_project()


def test_a_read_only_project_can_be_viewed_and_exported(
    read_only_project: Project, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    assert len(export(read_only_project, "nifti", tmp_path / "out").written) == 3
    for command in (
        ("train", read_only_project.path, "--steps", 1, "--device", "cpu"),
        (
            "export",
            read_only_project.path,
            "--format",
            "nrrd",
            "--out",
            read_only_project.path / "out",
        ),
    ):
        code, _, err = run(*command)
        assert code == 2
        assert "Read-only" in err or "is not writable" in err
        assert "Traceback" not in err


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".npy", ".json", ".st"])
def test_files_are_written_atomically(disk: Disk, project: Project, ending: str) -> None:
    """Also where the last bytes alone do not fit, which libraries are apt to overlook."""
    like = project.read_grid("scan-0")
    shape = (24, 40, 40)
    like = io.read_volume(_save_scan(project.path.parent, shape))
    one, two = (np.random.default_rng(s).normal(size=shape).astype(np.float32) for s in (1, 2))
    path = disk.path / f"file{ending}"

    def write(array: Any) -> None:
        if ending == ".npy":
            save_array(path, array)
        elif ending == ".json":
            write_bytes(path, array.tobytes())
        elif ending == ".st":
            safetensors_io.write_tensors(path, {"a": torch.from_numpy(array)}, {})
        else:
            io.write_map(array, reference=like, path=path)

    def read() -> Any:
        if ending == ".npy":
            return np.load(path)
        if ending == ".json":
            return np.frombuffer(path.read_bytes(), np.float32).reshape(shape)
        return load_file(path)["a"].numpy() if ending == ".st" else io.read_map(path)

    write(one)
    size, failed = path.stat().st_size, 0
    for leave in (*LEAVE, *(size - size % 4096 + n * 4096 for n in (-1, 0, 1, 2, 60))):
        disk.fill(leave)
        try:
            write(two)
        except ProjectError as error:
            failed += "disk is not full" in str(error)
            assert np.array_equal(read(), one)
        else:
            assert np.array_equal(read(), two)
        disk.empty()
        write(one)
        assert [p.name for p in disk.path.iterdir()] == [path.name]
    assert 0 < failed < len(LEAVE) + 5


def _save_scan(folder: Path, shape: tuple[int, ...]) -> Path:
    from helpers.nifti_files import save_nifti

    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return save_nifti(folder / "like.nii.gz", array.transpose(2, 1, 0))


def train_and_fill_disk(project: Project, disk: Disk, leave: int) -> Any:
    """A run at work on a disk that is full from its second checkpoint on; and its state then."""
    events = train(project, make_tiny_config(steps=5))
    for event in events:
        if event.event == "checkpoint" and event.step == 2:
            break
    state = project.runs.list()[-1].state_folder / "state.safetensors"
    before = state.read_bytes()
    disk.fill(leave)
    return events, state, before


@pytest.mark.usefixtures("short_retry_intervals")
@pytest.mark.parametrize("leave", [16_384, 0])
def test_a_run_on_a_full_disk_keeps_its_last_checkpoint(
    project_on_disk: Project, disk: Disk, leave: int
) -> None:
    events, state, before = train_and_fill_disk(project_on_disk, disk, leave)
    reported = []
    with pytest.raises(ProjectError, match=r"could not be written in .*No space left"):
        reported += list(events)
    assert state.read_bytes() == before
    run = project_on_disk.runs.list()[-1]
    if leave:
        last = run.read_events()[0][-1]
        assert last.event == "failed"
        assert "No space left" in last.message
    assert len(run.read_events()[0]) == run.events_path.read_bytes().count(b"\n")
    disk.empty()
    again = list(train(project_on_disk, TrainConfig.from_dict(run.read_config()), run))
    assert again[-1].event == "finished"
    assert [e.step for e in run.read_history() if e.event == "checkpoint"][-1] == 5


@pytest.mark.usefixtures("short_retry_intervals")
def test_a_run_continues_once_disk_space_is_available(project_on_disk: Project, disk: Disk) -> None:
    events, _, _ = train_and_fill_disk(project_on_disk, disk, 0)
    warned = []
    for event in events:
        if event.event == "warning":
            warned.append(event.message)
            disk.empty()
    assert len(warned) == 1
    assert "No checkpoint at step 3" in warned[0]
    written = project_on_disk.runs.list()[-1].read_events()[0]
    assert written[-1].event == "finished"
    assert warned[0] in [getattr(event, "message", None) for event in written]  # had to wait


def test_the_end_of_a_run_waits_for_disk_space(
    project_on_disk: Project, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "RETRY_PAUSE_S", 0.01)
    events = train(project_on_disk, make_tiny_config(steps=3, **{"intervals.checkpoint_s": 600.0}))
    for event in events:
        if event.event == "step":
            disk.fill()
            break
    for event in events:
        if event.event == "warning" and "Retrying for" in event.message:
            disk.empty()
    assert event.event == "finished"
    assert project_on_disk.runs.get().read_metrics().step == 3


def test_a_disk_that_fills_during_a_checkpoint_keeps_the_previous_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What safetensors raises is no OSError; without a disk of its own, this is what it does."""
    monkeypatch.setattr(retry, "RETRY_TIMEOUT_S", 0.0)

    def half(tensors: Any, path: Path, metadata: Any) -> None:
        save_file(tensors, path, metadata)
        os.truncate(path, path.stat().st_size // 2)
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    events = train(project, make_tiny_config(steps=4))
    for event in events:
        if event.event == "checkpoint" and event.step == 2:
            break
    run = project.runs.list()[-1]
    kept = {p: p.read_bytes() for p in (run.weights_path, run.state_folder / "state.safetensors")}
    monkeypatch.setattr(safetensors_io, "save_file", half)
    with pytest.raises(ProjectError, match=r"safetensors could not .*: No space left on device\."):
        list(events)
    assert {path: path.read_bytes() for path in kept} == kept
    assert not list(run.folder.rglob(".*.tmp.*"))
    err = [event for event in run.read_events()[0] if event.event != "phase"]
    assert (err[-1].event, err[-2].event) == ("failed", "warning")
    monkeypatch.undo()
    again = list(train(project, TrainConfig.from_dict(run.read_config()), run))
    assert (again[0].resumed_from_step, again[-1].event) == (2, "finished")


@pytest.mark.usefixtures("short_retry_intervals")
def test_a_folder_that_disappears_during_a_run_ends_it_with_an_error(project: Project) -> None:
    events = train(project, make_tiny_config(steps=5))
    for event in events:
        if event.event == "checkpoint" and event.step == 3:
            break
    away = project.path.with_name("away")
    project.path.rename(away)
    with pytest.raises(EngineError, match="last checkpoint is kept"):
        list(events)
    assert not project.path.exists(), "recreated when the folder is available again"
    away.rename(project.path)
    run = project.runs.list()[-1]
    again = list(train(project, TrainConfig.from_dict(run.read_config()), run))
    assert (again[0].resumed_from_step, again[-1].event) == (3, "finished")


def test_a_prediction_that_does_not_fit_leaves_the_old_one(
    project_on_disk: Project, disk: Disk
) -> None:
    run = project_on_disk.runs.create("dycon", {}).id
    shape = project_on_disk.read_grid("scan-0").shape
    old = np.ones(shape, np.uint8)
    project_on_disk.predictions.write(run, "scan-0", old, old * 0.5, old * 0.5)
    before = {p: p.read_bytes() for p in (project_on_disk.path / "predictions" / run).iterdir()}
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    disk.fill(16 * 4096)  # for one map, not for all
    with pytest.raises(ProjectError, match=r"^scan-0.nii.gz and its related files .*No space"):
        project_on_disk.predictions.write(run, "scan-0", 0 * old, noise, noise)
    disk.empty()
    after = {p: p.read_bytes() for p in (project_on_disk.path / "predictions" / run).iterdir()}
    assert after == before


@pytest.mark.parametrize("format_", ["nifti", "nrrd", "nnunet"])
def test_an_export_that_does_not_fit_is_reported(
    project_on_disk: Project, disk: Disk, format_: str
) -> None:
    out = disk.path / "out"
    disk.fill(6 * 4096 if format_ == "nnunet" else 2 * 4096)
    with pytest.raises(DyconError, match="disk is not full"):
        export(project_on_disk, format_, out)
    shown = [p for p in out.rglob("*") if p.is_file()]
    assert all(not p.name.startswith(".") for p in shown)
    disk.empty()
    shutil.rmtree(out)
