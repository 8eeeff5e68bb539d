"""The benchmark of accuracy: what it keeps, and that it goes on where it was."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

SETTINGS = ("batch.patch_size=[16,16,16]", "network.filters=[4,8,8]", "precision=float32")


@pytest.fixture
def accuracy() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"
    spec = importlib.util.spec_from_file_location("accuracy", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_row_that_was_cut_off_is_run_again_and_others_are_kept(
    accuracy: ModuleType, tmp_path: Path
) -> None:
    store = tmp_path / "rows.jsonl"
    accuracy.keep(store, {"key": "a"})
    with store.open("ab") as file:
        file.write(b'{"key": "b", "sco')
    assert list(accuracy.finished_rows(store)) == ["a"]
    accuracy.keep(store, {"key": "b"})
    assert list(accuracy.finished_rows(store)) == ["a", "b"]


def test_a_gain_is_that_of_a_case_over_the_same_case_of_the_same_seed(accuracy: ModuleType) -> None:
    def row(method: str, seed: int, *dice: float) -> dict[str, object]:
        return {"method": method, "seed": seed, "dice": dict(zip("abc", dice, strict=True))}

    rows = [
        row("supervised", 0, 0.5, 0.7, 0.9),
        row("dycon", 0, 0.6, 0.9, 0.9),
        row("supervised", 1, 0.5, 0.5, 0.5),
        row("dycon", 1, 0.4, 0.4, 0.4),
        row("dycon", 2, 0.1, 0.1, 0.1),  # no supervised run of this seed
    ]
    line = accuracy.gain(rows, "dycon")
    assert line.endswith("mean ± sd over seeds +0.0000 ± 0.1414")
    assert "+0.1000 ± 0.0577 (seed 0, higher in 2 of 3 cases)" in line
    assert "-0.1000 ± 0.0000 (seed 1, higher in 0 of 3 cases)" in line
    assert "seed 2" not in line
    assert accuracy.gain(rows, "supervised") is None
    del rows[0]["dice"], rows[2]["dice"]  # of earlier versions
    assert accuracy.gain(rows, "dycon") is None


@pytest.mark.slow
def test_held_out_cases_are_scored_once_and_kept(
    accuracy: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    for number in range(5):
        label = np.zeros((20, 18, 16), np.uint8)
        label[4 + number : 12 + number, 4:12, 4:12] = 1
        image = (label * 80 + np.random.default_rng(number).normal(100, 5, label.shape)).astype(
            "i2"
        )
        save_nifti(data / "images" / f"scan-{number}.nii.gz", image)
        save_nifti(data / "labels" / f"scan-{number}.nii.gz", label)
    arguments = ["accuracy.py", "--data", str(data), "--work", str(work), "--labeled", "2"]
    arguments += ["--test", "2", "--seeds", "0", "--steps", "2", "--methods", "dycon"]
    arguments += [word for pair in SETTINGS for word in ("--set", pair)]
    monkeypatch.setattr(sys, "argv", arguments)
    accuracy.main()
    (row,) = (work / "rows.jsonl").read_text().splitlines()
    found = json.loads(row)
    assert (found["steps"], found["scores"]["cases"]) == (2, 2)
    assert np.mean(list(found["dice"].values())) == pytest.approx(found["scores"]["mean_dice"])
    assert [path.name for path in work.iterdir()] == ["rows.jsonl"]
    first = capsys.readouterr().out

    monkeypatch.setattr(accuracy, "measure", None)  # nothing is left to run
    accuracy.main()
    assert capsys.readouterr().out == first
    assert "2 steps" in first
    assert "above supervised" not in first

    key = found["key"].replace("-dycon-", "-supervised-")  # as a call beside this one keeps it
    worse = {case: dice - 0.25 for case, dice in found["dice"].items()}
    accuracy.keep(work / "rows.jsonl", found | {"key": key, "method": "supervised", "dice": worse})
    accuracy.main()
    assert "- dycon above supervised, ± standard error over cases: +0.2500" in (
        capsys.readouterr().out
    )
