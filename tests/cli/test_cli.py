"""Tests of the command line program, for users and for scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import make_voxels, save_series
from helpers.nifti_files import save_nifti

from napari_dycon.cli import batch_predict
from napari_dycon.errors import ProjectError
from napari_dycon.project.store import Project

TRAIN = [
    "--device",
    "cpu",
    "--set",
    "batch.patch_size=[16,16,16]",
    "--set",
    "network.filters=[4,8,8]",
]
Run = Callable[..., tuple[int, str, str]]


def test_the_complete_workflow(run: Run, scans: Path, tmp_path: Path) -> None:
    project = tmp_path / "p"
    code, out, _ = run(
        "new", project, "--images", scans / "images", "--labels", scans / "labels",
        "--classes", "box", "--json",
    )  # fmt: skip
    assert code == 0
    made = json.loads(out)
    assert [c["status"] for c in made["cases"]] == ["labeled"] * 3 + ["unlabeled"] * 3
    assert [c["name"] for c in made["classes"]] == ["box"]

    code, out, _ = run("train", project, "--steps", 3, *TRAIN, "--json")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["event"] == "started"
    assert (project / "runs" / events[0]["run"] / "weights.safetensors").exists()
    assert events[-1]["event"] == "finished"
    assert not (project / "runs" / events[0]["run"] / "process.json").exists()

    code, out, _ = run("predict", project, "--cases", "scan-3,scan-4", "--json")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["case"] for e in events if e["event"] == "predicted"] == ["scan-3", "scan-4"]
    progress = [(e["case"], e["done"], e["total"]) for e in events if e["event"] == "predicting"]
    total = progress[-1][-1]  # with the templates that were predicted before
    assert progress[-2:] == [("scan-3", total - 2, total), ("scan-4", total - 1, total)]
    assert [done for _, done, _ in progress] == list(range(total))

    code, _, _ = run("predict", project, "--images", scans / "images", "--out", tmp_path / "out")
    assert code == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"scan-0.nii.gz", "scan-0_uncertainty.nii.gz"} <= names

    # Only the first three have a reference; the others are reported as skipped.
    for file in (tmp_path / "out").iterdir():
        if file.name[5] not in "012":
            file.unlink()
    code, out, _ = run("evaluate", tmp_path / "out", scans / "labels", "--json")
    assert code == 0
    assert set(json.loads(out)["cases"]) == {"scan-0", "scan-1", "scan-2"}
    code, out, _ = run("evaluate", tmp_path / "out", scans / "labels")
    assert code == 0
    assert "Dice" in out
    code, out, _ = run("cases", project)
    assert code == 0
    assert "unlabeled" in out


def test_an_error_is_one_line_and_leaves_no_files(run: Run, scans: Path, tmp_path: Path) -> None:
    def refused(words: str, *arguments: object) -> None:
        code, out, err = run(*arguments)
        assert code == 2, err
        assert out == ""
        assert words in err
        assert "Traceback" not in err
        assert not (tmp_path / "p").exists()

    (tmp_path / "empty").mkdir()
    refused("contains no scans", "new", tmp_path / "p", "--images", tmp_path / "empty")
    refused("does not exist", "new", tmp_path / "p", "--images", tmp_path / "none")
    refused("does not exist", "cases", tmp_path / "p")
    refused("does not exist", "gui", tmp_path / "p")
    save_nifti(scans / "labels" / "scan-0.nii.gz", np.full((20, 22, 18), 9, np.uint8))
    arguments = ("--images", scans / "images", "--labels", scans / "labels", "--classes", "box")
    refused("unknown class 9", "new", tmp_path / "p", *arguments)
    save_nifti(scans / "labels" / "scan-0.nii.gz", np.ones((5, 5, 5), np.uint8))
    refused("shapes differ", "new", tmp_path / "p", *arguments)
    refused("does not exist", "evaluate", tmp_path / "none", scans / "labels")
    refused("No such option", "train", tmp_path / "p", "--fast")


def test_a_bad_scan_does_not_stop_the_others(run: Run, scans: Path, tmp_path: Path) -> None:
    bad = scans / "images" / "scan-1b.nii.gz"
    bad.write_bytes((scans / "images" / "scan-1.nii.gz").read_bytes()[:400])
    project = tmp_path / "p"
    folders = ("--images", scans / "images", "--labels", scans / "labels")
    code, out, err = run("new", project, *folders, "--json")
    assert code == 0
    made = json.loads(out)
    assert len(made["cases"]) == 6
    (skipped,) = made["skipped"]
    assert skipped["case"] == "scan-1b"
    assert "scan-1b.nii.gz" in skipped["reason"]
    assert err.startswith("scan-1b was left out: ")
    assert "skipped" not in json.loads(run("cases", project, "--json")[1])

    assert run("train", project, "--steps", 1, *TRAIN)[0] == 0
    code, out, err = run(
        "predict", project, "--images", scans / "images", "--out", tmp_path / "out", "--json"
    )
    assert code == 2
    events = [json.loads(line) for line in out.splitlines()]
    progress = [(e["case"], e["done"], e["total"]) for e in events if e["event"] == "predicting"]
    assert [total - done for _, done, total in progress[-6:]] == [7, 6, 4, 3, 2, 1]
    assert "scan-1b" not in [case for case, *_ in progress]
    events = [e for e in events if e["event"] in ("predicted", "skipped")]
    assert [e["event"] for e in events] == ["predicted"] * 6 + ["skipped"]
    assert [(e["done"], e["total"]) for e in events[:6]] == [(n, 7) for n in (1, 2, 4, 5, 6, 7)]
    assert events[-1]["case"] == "scan-1b"
    assert "1 of 7 scans could not be predicted; the others were. scan-1b: " in err
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 18

    (scans / "images" / "scan-0.nii.gz").unlink()
    (scans / "images" / "scan-4.nii.gz").write_bytes(bad.read_bytes())
    code, out, err = run("predict", project)
    assert code == 2
    assert out.startswith("4 predictions of run 001-dycon")
    assert "Traceback" not in err
    lines = err.splitlines()
    assert lines[-3].startswith("scan-0 was left out: File")
    assert lines[-2].startswith("scan-4 was left out: ")
    assert lines[-1].startswith("2 of 6 scans could not be predicted; the others were. scan-0: ")

    code, out, err = run("predict", project, "--cases", "scan-4,scan-0", "--json")
    assert code == 2
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["case"] for e in events if e["event"] == "skipped"] == ["scan-4", "scan-0"]
    assert "predicted" not in [e["event"] for e in events]
    assert err.splitlines()[-1].startswith("scan-4.nii.gz")


def test_patients_without_a_channel_are_reported_together(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for patient in ("p1", "p2", "p3"):
        for channel in ("t1", "flair"):
            file = tmp_path / "in" / patient / f"{patient}_{channel}.nii.gz"
            save_nifti(file, rng.normal(size=(20, 22, 18)).astype(np.float32))
    project = Project.create(tmp_path / "p", channels=("t1", "flair"))
    files = [tmp_path / "in" / "p1" / f"p1_{channel}.nii.gz" for channel in ("t1", "flair")]
    label = np.zeros((20, 22, 18), np.uint8)
    label[4:12, 4:12, 4:12] = 1
    label_file = save_nifti(tmp_path / "p1.nii.gz", label)
    project.add_cases([files], ids=["p1"], labels={"p1": label_file})
    assert run("train", project.path, "--steps", 1, "--method", "supervised", *TRAIN)[0] == 0
    (tmp_path / "in" / "p2" / "p2_flair.nii.gz").unlink()
    command = ("predict", project.path, "--images", tmp_path / "in", "--json")
    code, out, err = run(*command)
    assert code == 2
    events = [json.loads(line) for line in out.splitlines()]
    reported = ("predicted", "skipped")
    events = [(e["event"], e["case"]) for e in events if e["event"] in reported]
    assert events == [("predicted", "p1"), ("predicted", "p3"), ("skipped", "p2")]
    assert "1 of 3 scans could not be predicted" in err

    shutil.rmtree(project.path / "predictions")
    (tmp_path / "elsewhere").mkdir()
    (project.path / "predictions").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    code, _, err = run(*command)
    assert code == 2
    assert "leads out of" in err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_irregular_slices_require_consent_and_others_are_added(run: Run, tmp_path: Path) -> None:
    save_series(tmp_path / "in" / "anna", make_voxels())
    save_series(tmp_path / "in" / "bert", make_voxels((7, 6, 7)))[3].unlink()
    code, out, err = run("new", tmp_path / "p", "--images", tmp_path / "in", "--json")
    assert code == 0
    assert [case["id"] for case in json.loads(out)["cases"]] == ["anna"]
    assert err.startswith("bert was left out: ")
    assert "--resample" in err
    code, out, _ = run("new", tmp_path / "q", "--images", tmp_path / "in", "--resample", "--json")
    assert code == 0
    assert json.loads(out)["skipped"] == []
    assert len(json.loads(out)["cases"]) == 2


def test_a_scan_that_does_not_fit_into_memory_fails_alone() -> None:
    error = RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory: 9 bytes")
    missed = batch_predict.build_failure_or_raise("huge", error)
    assert batch_predict.summarize_failures([missed], 3).exit_code == 1
    assert "huge is too large for the available memory" in str(missed.error)
    with pytest.raises(RuntimeError, match="mistake in the program"):
        batch_predict.build_failure_or_raise("strange", RuntimeError("a mistake in the program"))
    with pytest.raises(ProjectError, match="disk is full"):
        batch_predict.build_failure_or_raise("scan", ProjectError("the disk is full"))


def test_an_interrupted_command_exits_with_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Project, "open", interrupt)
    code, out, err = run("cases", "anywhere")
    assert (code, out, err.strip()) == (1, "", "Stopped.")


def test_training_errors_are_reported(run: Run, scans: Path, tmp_path: Path) -> None:
    assert run("new", tmp_path / "p", "--images", scans / "images")[0] == 0
    for words, arguments in (
        ("No case is labeled yet", ["--steps", "1"]),
        ("expected one of: dycon", ["--method", "magic"]),
        ("no preset 'best'", ["--preset", "best"]),
        ("Unknown setting color", ["--set", "color=1"]),
        ("is not a valid training time", ["--time-limit", "soon"]),
        ("is not a valid training time", ["--time-limit", "0m"]),
        ("Write the unit: 5s, 5m or 5h", ["--time-limit", "5"]),
        ("--method supervised instead", ["--set", "method=supervised"]),
        ("--preset paper instead", ["--set", "preset=paper"]),
        ("--seed 4 instead", ["--seed", "3", "--set", "seed=4"]),
        ("--steps 9 instead", ["--set", "steps=9"]),
        ("--init-from x instead", ["--set", "init_from=x"]),
        ("--time-limit TIME, such as 10m instead", ["--set", "time_limit=9"]),
        (
            "semi_supervised.weight is -1; expected 0 or more",
            ["--set", "semi_supervised.weight=-1"],
        ),
        ("expected 0 to 1", ["--set", "semi_supervised.pseudo_label_threshold=7"]),
        ("a list of 3 numbers such as [1,1,1]", ["--set", "batch.patch_size=32"]),
        ("a list of numbers such as [1,1]", ["--set", "network.filters=8,16,32"]),
        ("true or false", ["--set", "augmentation.enabled=False"]),
        ("Did you mean optimizer.learning_rate", ["--set", "learningrate=0.1"]),
        ("Run 'x' does not exist", ["--resume", "x"]),
    ):
        code, _, err = run("train", tmp_path / "p", *arguments)
        assert code == 2
        assert words in err
    code, _, err = run("predict", tmp_path / "p")
    assert code == 2
    assert "no trained weights" in err
    assert not (tmp_path / "p" / "runs").exists()
