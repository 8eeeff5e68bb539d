"""The readable log of a run: phases, warnings and errors, without names of cases and paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_runs import TINY

from napari_dycon.application import engine_process
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.errors import EngineError
from napari_dycon.project.runs.events import FailedEvent, PhaseEvent, WarningEvent
from napari_dycon.project.runs.run_log import RunLog
from napari_dycon.project.store import Project


def read_lines(project: Project) -> list[str]:
    text = project.runs.list()[-1].log_path.read_text(encoding="utf-8")
    return [line.split(" ", 2)[2] for line in text.splitlines()]


def test_a_run_of_the_window_has_a_log(project: Project) -> None:
    project.set_split("scan-2", "validation")
    run = project.runs.create("dycon", make_config("dycon", **TINY).to_dict())
    process = engine_process.launch_training(project.path, run)
    events = list(engine_process.follow_training(run, process))
    assert events[-1].event == "finished"
    lines = read_lines(project)
    assert lines[0].startswith(f"Run {run.id}: 2 labeled, 3 unlabeled and 1 validation cases, cpu")
    for text in ("Preparing scans", "Training", "Validating case 1 of 1", "Finishing"):
        assert any(line.startswith(text) for line in lines)
    assert lines[-1].startswith("Finished at step 4 after")
    assert "scan-" not in "\n".join(lines)


def test_errors_of_a_run_of_the_window_name_no_case(project: Project) -> None:
    run = project.runs.create("dycon", make_config("dycon", **TINY).to_dict())
    path = project.image_paths("scan-1")[0]
    path.write_bytes(b"no scan")
    process = engine_process.launch_training(project.path, run)
    *_, last = engine_process.follow_training(run, process)
    assert isinstance(last, FailedEvent)
    assert path.name in last.message
    text = run.log_path.read_text(encoding="utf-8")
    assert "Failed: " in text
    assert "scan-1" not in text
    assert str(project.path.parent) not in text


def test_warnings_are_in_the_log_without_names(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.set_split("scan-2", "validation")
    run = train(project, make_config("supervised", **TINY))
    next(run)
    project.image_paths("scan-2")[0].unlink()
    list(run)
    (line,) = [line for line in read_lines(project) if line.startswith("Warning")]
    assert "Validation case [case] could not be evaluated" in line
    assert "scan-2" not in line
    assert str(project.path.parent) not in line


def test_names_and_paths_are_hidden(project: Project) -> None:
    run = project.runs.create("dycon", {})
    folder = "/data/Anna Meier 1970"
    log = RunLog(run, ["Meier", "Meier 2", "7"], [folder, "Anna Meier.nii.gz"])
    for text, expected in (
        ("Case Meier 2 failed.", "Case [case] failed."),
        ("Case 7 and Meiers of 17 scans", "Case [case] and Meiers of 17 scans"),
        (f"{folder}/Meier/scan.nii is gone", "[path] is gone"),
        (r"C:\Users\anna\scan.nii, \\ward\share", "[path], [path]"),
        ("~/scans/x and /home/anna/x: no", "[path] and [path] no"),
        ("Anna Meier.nii.gz cannot be read", "[path] cannot be read"),
        ("3/4 of the time, and/or more", "3/4 of the time, and/or more"),
    ):
        assert log.hide_names(text) == expected


def test_the_log_has_one_line_for_each_phase_and_survives_the_disk(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = project.runs.create("dycon", {})
    log = RunLog(run, [], [])
    for number in range(5):
        log.write(PhaseEvent(phase="aligning", done=number, total=5))
    log.write(WarningEvent(message="One\nline"))
    assert len(run.log_path.read_text(encoding="utf-8").splitlines()) == 2

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(Path, "open", refuse)
    log.write(WarningEvent(message="lost"))


def test_a_failed_run_has_its_reason_in_the_log(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_dycon.engine.methods.supervised import Supervised

    def fail(*_: object) -> None:
        raise RuntimeError("the driver is gone")

    monkeypatch.setattr(Supervised, "compute_loss_terms", fail)
    with pytest.raises(EngineError):
        list(train(project, make_config("supervised", **TINY)))
    assert read_lines(project)[-1].startswith("Failed: Training stopped because of an error: the d")
