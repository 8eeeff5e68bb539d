"""Evaluation refuses scans, and tells of swapped folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

from napari_dycon.engine.evaluation.folders import evaluate_folders
from napari_dycon.errors import LabelError, UserError
from napari_dycon.io.scan_detection import describe_scan_texture

Run = Callable[..., tuple[int, str, str]]
SHAPE = (12, 13, 14)


def make_mask() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 3:8, 3:8] = 1
    return mask


def make_scan(dtype: type) -> np.ndarray:
    noise = np.random.default_rng(0).normal(110, 30, SHAPE)
    return np.clip(noise, 1, 254).astype(dtype)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    save_nifti(tmp_path / "truth" / "a.nii.gz", make_mask())
    return tmp_path / "truth"


@pytest.mark.parametrize(
    ("scan", "found"),
    [
        (make_scan(np.uint8), r"\d+ distinct values, such as \d+, \d+, \d+, that change"),
        (make_scan(np.float32), r"not whole numbers, such as \d+\.\d+"),
        (make_scan(np.int16) * 10 - 1024, r"values from -\d+ to \d+"),
        (np.full(SHAPE, np.nan, np.float32), "not finite"),
    ],
)
def test_scans_are_refused_as_either_folder(
    scan: np.ndarray, found: str, truth: Path, tmp_path: Path
) -> None:
    save_nifti(tmp_path / "scans" / "a.nii.gz", scan)
    with pytest.raises(LabelError, match=rf"references in .*scans look like scans: .*{found}"):
        evaluate_folders(truth, tmp_path / "scans")
    with pytest.raises(LabelError, match=rf"predictions in .*scans look like scans: .*{found}"):
        evaluate_folders(tmp_path / "scans", truth)


def test_the_command_refuses_scans_with_an_exit_code(run: Run, truth: Path, tmp_path: Path) -> None:
    save_nifti(tmp_path / "scans" / "a.nii.gz", make_scan(np.uint8))
    code, out, err = run("evaluate", truth, tmp_path / "scans")
    assert (code, out) == (2, "")
    assert "look like scans" in err
    assert "Expected masks with one whole number" in err


def test_masks_of_many_structures_are_no_scans(tmp_path: Path) -> None:
    """A parcellation of 200 structures, also one of single voxels beside background."""
    blocks = np.arange(1, 126, dtype=np.uint8).reshape(5, 5, 5)
    mask = blocks.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    assert describe_scan_texture(mask) is None
    scattered = np.zeros((20, 20, 20), np.uint8)
    scattered[::2, ::2, ::2] = np.random.default_rng(0).integers(1, 200, (10, 10, 10))
    assert describe_scan_texture(scattered) is None
    save_nifti(tmp_path / "a" / "x.nii.gz", mask)
    save_nifti(tmp_path / "b" / "x.nii.gz", mask)
    assert evaluate_folders(tmp_path / "a", tmp_path / "b")["summary"]["mean_dice"] == 1.0


def test_a_skull_stripped_scan_is_a_scan() -> None:
    scan = make_scan(np.uint8)
    scan[:8] = 0  # most voxels agree with their neighbors
    assert describe_scan_texture(scan) is not None


def test_swapped_folders_are_told(truth: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    save_nifti(predictions / "a.nii.gz", make_mask())
    save_nifti(predictions / "a_uncertainty.nii.gz", np.full(SHAPE, 0.5, np.float32))
    assert evaluate_folders(predictions, truth)["warnings"] == []
    (warning,) = evaluate_folders(truth, predictions)["warnings"]
    assert "check that the folders are not swapped" in warning
    sparse = np.full(SHAPE, 255, np.uint8)
    sparse[4] = make_mask()[4]
    save_nifti(truth / "a.nii.gz", sparse)
    with pytest.raises(LabelError, match="If the folders are swapped"):
        evaluate_folders(truth, predictions)
    with pytest.raises(UserError, match="given both for the predictions and for the references"):
        evaluate_folders(truth, truth)


@pytest.mark.parametrize("name", ["hippocampus", "left-atrium"])
def test_real_scans_and_masks_are_told_apart(
    name: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = real_data(name)
    label = sorted((folder / "labels").iterdir())[0]
    scan = folder / "images" / label.name
    for place, file in (("masks", label), ("again", label), ("scans", scan)):
        (tmp_path / place).mkdir()
        (tmp_path / place / label.name).symlink_to(file)
    assert evaluate_folders(tmp_path / "masks", tmp_path / "again")["summary"]["mean_dice"] == 1.0
    with pytest.raises(LabelError, match="look like scans"):
        evaluate_folders(tmp_path / "masks", tmp_path / "scans")
