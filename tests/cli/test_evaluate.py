"""``evaluate`` names classes, writes CSV, and continues after a case that does not fit."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

from napari_dycon.engine.evaluation.class_names import find_class_names
from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]
SHAPE = (10, 11, 12)


def make_mask(start: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[start : start + 4, 3:7, 3:7] = 1
    mask[start : start + 4, 8:10, 3:7] = 2
    return mask


@pytest.fixture
def masks(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of predictions and references of two cases."""
    for name, shift in (("a", 0), ("b", 1)):
        save_nifti(tmp_path / "p" / f"{name}.nii.gz", make_mask(3 + shift))
        save_nifti(tmp_path / "r" / f"{name}.nii.gz", make_mask(3))
    return tmp_path / "p", tmp_path / "r"


def write_record(folder: Path, name: str, classes: object) -> None:
    text = json.dumps({"origin": {"run": "001-dycon", "classes": classes}})
    (folder / f"{name}.json").write_text(text)


def test_classes_have_the_names_of_the_run(run: Run, masks: tuple[Path, Path]) -> None:
    write_record(masks[0], "a", {"1": "liver", "2": "tumor"})
    code, out, _ = run("evaluate", *masks)
    assert code == 0
    assert "liver" in out
    assert "tumor" in out
    assert json.loads(run("evaluate", *masks, "--json")[1])["names"] == {"1": "liver", "2": "tumor"}
    _, out, _ = run("evaluate", *masks, "--classes", "left,right")
    assert "left" in out
    assert "liver" not in out


def test_names_come_from_datasets_and_projects(
    masks: tuple[Path, Path], project: Project, tmp_path: Path
) -> None:
    assert find_class_names(*masks) == {}
    for values in ('{"labels": {"background": 0, "liver": 1}}', '{"labels": {"1": "liver"}}'):
        (tmp_path / "dataset.json").write_text(values)  # nnU-Net and Decathlon
        assert find_class_names(*masks) == {1: "liver"}
    for values in ("{", "[]", '{"labels": {"x": [1, 2]}}', '{"labels": 5}'):
        (tmp_path / "dataset.json").write_text(values)
        assert find_class_names(*masks) == {}
    for record in ([], "x", {"300": "a", "-1": "b", "x": "c"}, {"1": 5}):
        write_record(masks[0], "a", record)
        assert find_class_names(*masks) == {}
    assert find_class_names(masks[0], project.path / "labels") == {1: "box"}
    assert find_class_names(project.path / "predictions" / "001-dycon", masks[1]) == {1: "box"}


def test_metrics_are_written_as_csv(run: Run, masks: tuple[Path, Path], tmp_path: Path) -> None:
    write_record(masks[0], "a", {"1": "=liver", "2": "Läsion"})
    path = tmp_path / "metrics.csv"
    code, out, err = run("evaluate", *masks, "--csv", path)
    assert code == 0
    assert f"Wrote {path}" in err
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")  # by which Excel recognizes UTF-8
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    assert [(row["case"], row["class"], row["name"]) for row in rows] == [
        ("a", "1", "'=liver"), ("a", "2", "Läsion"), ("b", "1", "'=liver"), ("b", "2", "Läsion"),
    ]  # fmt: skip
    assert [float(row["dice"]) for row in rows] == [1.0, 1.0, 0.75, 0.75]
    assert {row["missed"] for row in rows} == {"no"}
    assert "mean foreground Dice 0.875 ± " in out  # as many digits as the cases
    pandas = pytest.importorskip("pandas")
    assert list(pandas.read_csv(path).columns)[:2] == ["case", "class"]


def test_a_csv_file_without_class_names_has_empty_names(
    run: Run, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    assert run("evaluate", *masks, "--csv", tmp_path / "m.csv")[0] == 0
    rows = csv.DictReader((tmp_path / "m.csv").read_text(encoding="utf-8-sig").splitlines())
    assert {row["name"] for row in rows} == {""}


def test_class_names_are_checked(run: Run, masks: tuple[Path, Path]) -> None:
    for names, words in (("a,A", "names two classes 'a'"), ("a,", "holds an empty name")):
        code, out, err = run("evaluate", *masks, "--classes", names)
        assert (code, out) == (2, "")
        assert words in err
    code, _, err = run("evaluate", *masks, "--classes", "a")
    assert code == 0
    assert "--classes has no name for the class 2 of these masks." in err
    assert "no name" not in run("evaluate", *masks, "--classes", "a,b,c")[2]


@pytest.mark.parametrize("name", ["none/metrics.csv", "r", "a.nii.gz"])
def test_a_csv_file_that_cannot_be_written_is_refused_first(
    name: str, run: Run, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    code, out, err = run("evaluate", *masks, "--csv", tmp_path / name)
    assert (code, out) == (2, "")
    assert name in err


def test_a_case_that_does_not_fit_does_not_stop_the_others(
    run: Run, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    save_nifti(tmp_path / "p" / "c.nii.gz", make_mask(3)[:-1])  # another grid
    save_nifti(tmp_path / "r" / "c.nii.gz", make_mask(3))
    save_nifti(tmp_path / "p" / "d.nii.gz", make_mask(3))
    save_nifti(tmp_path / "r" / "d.nii.gz", make_mask(3))
    (tmp_path / "p" / "d.nii.gz").write_bytes(b"damaged")
    save_nifti(tmp_path / "p" / "a_uncertainty.nii.gz", np.full(SHAPE, 2.0, np.float32))
    code, out, err = run("evaluate", *masks, "--csv", tmp_path / "m.csv")
    assert code == 2
    assert "1 case, mean foreground Dice 0.750" in out
    assert (
        f"The prediction {tmp_path / 'p' / 'c.nii.gz'} is not on the grid of its reference" in err
    )
    for name in "acd":
        assert f"{name} was left out: " in err
    assert "their shapes differ" in err
    assert err.splitlines()[-1] == "3 of 4 cases could not be compared; the others were."
    assert "\nb,1," in (tmp_path / "m.csv").read_text(encoding="utf-8-sig")
    code, out, _ = run("evaluate", *masks, "--json")
    assert code == 2
    assert set(json.loads(out)["failed"]) == {"a", "c", "d"}


def test_nothing_is_shown_if_no_case_fits(run: Run, tmp_path: Path) -> None:
    for name in "ab":
        save_nifti(tmp_path / "p" / f"{name}.nii.gz", make_mask(3)[:-1])
        save_nifti(tmp_path / "r" / f"{name}.nii.gz", make_mask(3))
    code, out, err = run("evaluate", tmp_path / "p", tmp_path / "r", "--csv", tmp_path / "m.csv")
    assert (code, out) == (2, "")
    assert "a.nii.gz" in err
    assert not (tmp_path / "m.csv").exists()


def test_the_run_of_the_predictions_is_named(run: Run, masks: tuple[Path, Path]) -> None:
    assert "redicted by" not in run("evaluate", *masks)[2]
    write_record(masks[0], "a", {})
    assert "Predicted by 001-dycon." in run("evaluate", *masks)[2]
    (masks[0] / "b.json").write_text('{"origin": {"run": "002-dycon", "step": 40}}')
    _, _, err = run("evaluate", *masks)
    assert "of different runs: 1 by 001-dycon, 1 by 002-dycon (40 steps). Their means" in err
    found = json.loads(run("evaluate", *masks, "--json")[1])
    assert found["runs"] == {"001-dycon": 1, "002-dycon (40 steps)": 1}
