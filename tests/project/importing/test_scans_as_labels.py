"""Scans are not imported as labels, labels of very many structures are; masks as scans are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

from napari_dycon.errors import LabelError, UserError
from napari_dycon.project.importing.create_project import create_project

SHAPE = (24, 24, 24)


def make_parcellation(n_structures: int) -> np.ndarray:
    """Regions of different sizes around random points, in a ball: about 30 voxels each."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 24, (n_structures, 3))
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    nearest = ((grid - points) ** 2).sum(-1).argmin(-1).reshape(SHAPE) + 1
    is_inside = ((grid[:, 0] - 12) ** 2).sum(-1).reshape(SHAPE) < 11**2
    return np.where(is_inside, nearest, 0).astype(np.uint8)


@pytest.mark.parametrize("classes", [None, ["a", "b"]])
def test_a_scan_is_refused_as_a_label(classes: list[str] | None, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(110, 30, SHAPE)
    scan = np.clip(noise, 1, 254).astype(np.uint8)
    save_nifti(tmp_path / "images" / "a.nii.gz", scan)
    save_nifti(tmp_path / "labels" / "a.nii.gz", scan)
    with pytest.raises(LabelError, match=r"a\.nii\.gz looks like a scan instead of a label"):
        create_project(tmp_path / "p", tmp_path / "images", tmp_path / "labels", classes)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("n_structures", [45, 120, 200])
def test_labels_of_many_structures_are_imported(n_structures: int, tmp_path: Path) -> None:
    label = make_parcellation(n_structures)
    save_nifti(tmp_path / "images" / "a.nii.gz", label.astype(np.float32))
    save_nifti(tmp_path / "labels" / "a.nii.gz", label)
    project = create_project(tmp_path / "p", tmp_path / "images", tmp_path / "labels")
    assert len(project.classes) == len(np.unique(label)) - 1


def test_a_mask_in_place_of_a_scan_is_told(tmp_path: Path) -> None:
    mask = make_parcellation(45)
    for name in ("a", "b"):
        save_nifti(tmp_path / "masks" / f"{name}.nii.gz", (mask % 3).astype(np.float32))
        save_nifti(tmp_path / "scans" / f"{name}.nii.gz", mask.astype(np.float32))
    notes: list[str] = []
    create_project(tmp_path / "p", tmp_path / "masks", on_note=notes.append)
    assert notes == [
        "a has only the values 0, 1, 2, like a mask. Check that this is the folder of the scans."
    ]
    create_project(tmp_path / "q", tmp_path / "scans", on_note=notes.append)
    assert len(notes) == 1
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="contains no labels; expected"):
        create_project(tmp_path / "r", tmp_path / "scans", tmp_path / "none")


@pytest.mark.parametrize("name", ["hippocampus", "left-atrium"])
def test_real_scans_of_8_bits_are_refused(
    name: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    from napari_dycon import io
    from napari_dycon.io.scan_detection import describe_scan_texture

    tried = 0
    for path in sorted((real_data(name) / "images").iterdir())[:12]:
        array = io.read_volume(path).array
        if array.max() <= 254 and (array == array.astype(np.uint8)).all():
            assert describe_scan_texture(array.astype(np.uint8)) is not None, path.name
            tried += 1
    assert tried
