"""Small scans of noise with a bright box."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers.nifti_files import save_nifti
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project


def make_scans(folder: Path) -> Path:
    """Write images/ (6 noisy scans with a bright box) and labels/ (of the first 3)."""
    for number in range(6):
        rng = np.random.default_rng(number)
        label = np.zeros((20, 22, 18), np.uint8)
        corner = rng.integers(3, 8, 3)
        label[tuple(slice(c, c + 8) for c in corner)] = 1
        image = (label * 80 + rng.normal(100, 10, label.shape)).astype(np.int16)
        save_nifti(folder / "images" / f"scan-{number}.nii.gz", image)
        if number < 3:
            save_nifti(folder / "labels" / f"scan-{number}.nii.gz", label)
    return folder


def make_scan_project(folder: Path) -> Project:
    """Project of six scans, three of them labeled."""
    scans = make_scans(folder / "scans")
    return create_project(folder / "project", scans / "images", scans / "labels", ["box"])
