"""Evaluation of folders of predictions: matching of files, refusals and messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dycon.engine.evaluation.folders import evaluate_folders
from napari_dycon.errors import GeometryError, LabelError, UserError

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save_mask(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def make_cube(offset: int = 0, value: int = 1) -> np.ndarray:
    label = np.zeros((10, 11, 12), np.uint8)
    label[2 + offset : 6 + offset, 3:7, 4:8] = value
    return label


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for number, name in enumerate(("a", "b.1", "c")):
        save_mask(predictions / f"{name}.nii.gz", make_cube(number))
        save_mask(references / f"{name}.nii.gz", make_cube())
    return predictions, references


def test_pairs_are_scored_in_order_with_progress(folders):
    seen = []
    result = evaluate_folders(*folders, on_progress=lambda *step: seen.append(step))
    assert seen == [(1, 3, "a"), (2, 3, "b.1"), (3, 3, "c")]
    assert list(result["cases"]) == ["a", "b.1", "c"]
    assert result["classes"] == [1]
    assert result["missing"] == []
    assert result["warnings"] == []
    dices = [result["cases"][name]["classes"]["1"]["dice"] for name in ("a", "b.1", "c")]
    assert dices == pytest.approx([1.0, 0.75, 0.5])
    assert result["summary"]["mean_dice"] == pytest.approx(0.75)
    # The shift runs along the file's first axis, of 1 mm; the voxels hold 6 mm³.
    scores = result["cases"]["c"]["classes"]["1"]
    assert scores["hd95_mm"] == pytest.approx(2.0)
    assert scores["volume_ml"] == pytest.approx(64 * 6 / 1000)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_all_cases_are_scored_for_the_union_of_classes(folders):
    predictions, references = folders
    save_mask(predictions / "a.nii.gz", make_cube(0, value=3))
    result = evaluate_folders(predictions, references)
    assert result["classes"] == [1, 3]
    assert result["cases"]["a"]["classes"]["1"]["missed"] is True
    assert result["cases"]["a"]["classes"]["3"]["missed"] is True
    assert result["cases"]["c"]["classes"]["3"]["dice"] == 1


def test_uncertainty_maps_are_evaluated_and_not_taken_for_predictions(folders):
    predictions, references = folders
    for number, name in enumerate(("a", "b.1", "c")):
        uncertainty = (make_cube(number) != make_cube()).astype(np.float32) * 0.8 + 0.1 * number
        save_mask(predictions / f"{name}_uncertainty.nii.gz", uncertainty)
        save_mask(predictions / f"{name}_disagreement.nii.gz", uncertainty)
    result = evaluate_folders(predictions, references)
    assert list(result["cases"]) == ["a", "b.1", "c"]
    assert result["cases"]["a"]["uncertainty"]["auroc"] is None
    assert result["cases"]["c"]["uncertainty"]["auroc"] == 1
    assert result["summary"]["uncertainty"]["rank_correlation"] == pytest.approx(1)


def test_calibration_includes_structures_that_occur_in_no_file(folders):
    predictions, references = folders
    # A network of two structures, sure to 0.7 of one of them: entropy over log 3, right in 70 %.
    entropy = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))
    for path in references.iterdir():
        truth = np.random.default_rng(0).random(make_cube().shape) < 0.7
        save_mask(path, truth.astype(np.uint8))
        save_mask(predictions / path.name, np.ones(make_cube().shape, np.uint8))
        uncertainty = np.full(make_cube().shape, entropy / np.log(3), np.float32)
        save_mask(predictions / path.name.replace(".nii", "_uncertainty.nii"), uncertainty)
    found = evaluate_folders(predictions, references)["summary"]["uncertainty"]["ece"]
    assert found > 0.1
    ece = evaluate_folders(predictions, references, n_structures=2)["summary"]["uncertainty"]["ece"]
    assert ece < 0.02


def test_predictions_without_a_reference_are_skipped_and_reported(folders):
    predictions, references = folders
    (references / "b.1.nii.gz").unlink()
    result = evaluate_folders(predictions, references)
    assert list(result["cases"]) == ["a", "c"]
    assert "1 prediction without a reference, left out: b.1." in result["warnings"]
    for name in ("a", "c"):
        (references / f"{name}.nii.gz").rename(references / f"other-{name}.nii.gz")
    with pytest.raises(UserError, match=r"No prediction in .* has a reference of the same name"):
        evaluate_folders(predictions, references)


def test_a_reference_without_a_prediction_is_listed_and_reported(folders):
    predictions, references = folders
    (predictions / "c.nii.gz").unlink()
    result = evaluate_folders(predictions, references)
    assert result["missing"] == ["c"]
    assert result["summary"]["cases"] == 2
    (warning,) = result["warnings"]
    assert "1 reference without a prediction" in warning
    assert warning.endswith("c.")


def test_an_unannotated_reference_is_skipped_and_reported(folders):
    predictions, references = folders
    save_mask(references / "a.nii.gz", np.full((10, 11, 12), 255, np.uint8))
    result = evaluate_folders(predictions, references)
    assert list(result["cases"]) == ["b.1", "c"]
    assert "without an annotated voxel" in result["warnings"][0]
    for name in ("b.1", "c"):
        save_mask(references / f"{name}.nii.gz", np.full((10, 11, 12), 255, np.uint8))
    with pytest.raises(LabelError, match="all are 255"):
        evaluate_folders(predictions, references)


def test_empty_and_missing_folders_are_refused(tmp_path: Path, folders):
    predictions, references = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError, match=r"folder of predictions .* holds no scan"):
        evaluate_folders(empty, references)
    with pytest.raises(UserError, match=r"folder of references .* holds no scan"):
        evaluate_folders(predictions, empty)
    with pytest.raises(UserError, match="does not exist"):
        evaluate_folders(tmp_path / "nowhere", references)


def test_mismatched_grids_are_refused_before_scoring(folders):
    predictions, references = folders
    save_mask(predictions / "c.nii.gz", make_cube(), np.diag([1.0, 2.0, 4.0, 1.0]))
    seen = []
    with pytest.raises(GeometryError, match=r"c\.nii\.gz"):
        evaluate_folders(predictions, references, on_progress=lambda *step: seen.append(step))
    assert seen == []
    save_mask(predictions / "c.nii.gz", make_cube()[:-1])
    with pytest.raises(GeometryError, match=r"c\.nii\.gz"):
        evaluate_folders(predictions, references)


def test_a_map_on_another_grid_or_out_of_range_is_refused(folders):
    predictions, references = folders
    path = predictions / "a_uncertainty.nii.gz"
    save_mask(path, np.zeros((10, 11, 13), np.float32))
    with pytest.raises(GeometryError, match=r"a_uncertainty\.nii\.gz is not on the grid"):
        evaluate_folders(predictions, references)
    save_mask(path, np.full((10, 11, 12), 1.5, np.float32))
    with pytest.raises(UserError, match=r"with values in \[0, 1\]"):
        evaluate_folders(predictions, references)
    save_mask(path, np.full((10, 11, 12), np.nan, np.float32))
    with pytest.raises(UserError, match=r"with values in \[0, 1\]"):
        evaluate_folders(predictions, references)


def test_a_mask_written_as_255_is_refused(folders):
    predictions, references = folders
    save_mask(predictions / "b.1.nii.gz", make_cube(0, value=255))
    with pytest.raises(LabelError, match=r"b\.1\.nii\.gz contains the value 255"):
        evaluate_folders(predictions, references)


def test_masks_with_only_background_are_refused(tmp_path: Path):
    save_mask(tmp_path / "p" / "a.nii.gz", np.zeros((4, 5, 6), np.uint8))
    save_mask(tmp_path / "r" / "a.nii.gz", np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(LabelError, match="all 0"):
        evaluate_folders(tmp_path / "p", tmp_path / "r")


def test_files_with_the_same_name_are_refused(folders):
    predictions, references = folders
    save_mask(predictions / "a.nii", make_cube())
    with pytest.raises(UserError, match=r"both a\.nii and a\.nii\.gz"):
        evaluate_folders(predictions, references)


def test_evaluation_needs_no_qt_no_napari_and_no_simpleitk():
    code = (
        "import sys, napari_dycon.engine.evaluation.folders;"
        "bad = {'qtpy', 'PyQt5', 'napari', 'SimpleITK'} & set(sys.modules);"
        "sys.exit(str(sorted(bad)) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
