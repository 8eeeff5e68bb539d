"""Tests of ``benchmarks/accuracy.py``: stored rows, gains, names of records, resuming."""

from __future__ import annotations

import argparse
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


def test_a_truncated_row_is_recomputed_and_others_are_kept(
    accuracy: ModuleType, tmp_path: Path
) -> None:
    store = tmp_path / "rows.jsonl"
    accuracy.append_row(store, {"key": "a"})
    with store.open("ab") as file:
        file.write(b'{"key": "b", "sco')
    assert list(accuracy.read_rows(store)) == ["a"]
    accuracy.append_row(store, {"key": "b"})
    assert list(accuracy.read_rows(store)) == ["a", "b"]


def test_the_gain_is_paired_by_case_and_seed(accuracy: ModuleType) -> None:
    def row(method: str, seed: int, *dice: float) -> dict[str, object]:
        return {"method": method, "seed": seed, "dice": dict(zip("abc", dice, strict=True))}

    rows = [
        row("supervised", 0, 0.5, 0.7, 0.9),
        row("dycon", 0, 0.6, 0.9, 0.9),
        row("supervised", 1, 0.5, 0.5, 0.5),
        row("dycon", 1, 0.4, 0.4, 0.4),
        row("dycon", 2, 0.1, 0.1, 0.1),  # no supervised run of this seed
    ]
    line = accuracy.describe_gain(rows, "dycon")
    assert line.endswith("mean ± sd over seeds +0.0000 ± 0.1414")
    assert "+0.1000 ± 0.0577 (seed 0, higher in 2 of 3 cases)" in line
    assert "-0.1000 ± 0.0000 (seed 1, higher in 0 of 3 cases)" in line
    assert "seed 2" not in line
    assert accuracy.describe_gain(rows, "supervised") is None
    del rows[0]["dice"], rows[2]["dice"]  # of earlier versions
    assert accuracy.describe_gain(rows, "dycon") is None


@pytest.mark.parametrize(
    "change",
    [
        {"methods": ["dycon"]},
        {"seeds": [0, 1]},
        {"set": ["fecl.weight=0"]},
        {"set": ["fecl.weight=0", "uncl.weight=0"]},
        {"every": 5},
        {"order": "listed"},
        {"test": 20},
        {"device": "cuda"},
        {"time_limit": "10m"},
    ],
    ids=str,
)
def test_records_of_different_arguments_have_different_names(
    accuracy: ModuleType, change: dict[str, object]
) -> None:
    options = {
        "data": Path("left-atrium"), "work": Path("w"), "labeled": 4, "test": 40, "order": "random",
        "methods": ["supervised", "dycon"], "preset": "default", "seeds": [0, 1, 2],
        "time_limit": None, "steps": 1000, "device": "cpu", "every": 1, "set": [], "record": True,
    }  # fmt: skip

    def make_name(**values: object) -> str:
        return accuracy.make_record_name(argparse.Namespace(**options | values))

    assert make_name(**change) != make_name()
    assert make_name(**change) == make_name(**change, work=Path("other"))
    assert make_name().startswith(
        "accuracy-left-atrium-4labeled-supervised-dycon-default-1000steps"
    )


def test_a_record_holds_the_rows_and_the_arguments(
    accuracy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path / "results")
    arguments = argparse.Namespace(
        data=tmp_path / "hippocampus", work=tmp_path, labeled=4, methods=["dycon"], seeds=[3],
        preset="default", time_limit="10m", steps=None, set=["fecl.weight=0"], record=True,
    )  # fmt: skip
    accuracy.record(arguments, [{"key": "a"}])
    (path,) = (tmp_path / "results").iterdir()
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["rows"] == [{"key": "a"}]
    assert result["arguments"]["data"] == "hippocampus"
    assert result["arguments"]["set"] == "['fecl.weight=0']"
    assert "work" not in result["arguments"]


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

    monkeypatch.setattr(accuracy, "measure", None)  # everything is stored
    accuracy.main()
    assert capsys.readouterr().out == first
    assert "2 steps" in first
    assert "above supervised" not in first

    key = found["key"].replace("-dycon-", "-supervised-")  # as a concurrent call stores it
    worse = {case: dice - 0.25 for case, dice in found["dice"].items()}
    accuracy.append_row(
        work / "rows.jsonl", found | {"key": key, "method": "supervised", "dice": worse}
    )
    accuracy.main()
    assert "- dycon above supervised, ± standard error over cases: +0.2500" in (
        capsys.readouterr().out
    )
