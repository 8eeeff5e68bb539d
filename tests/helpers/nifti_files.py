"""Writing of small NIfTI files for tests."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (6, 7, 8)
"""Voxels of the scans and labels below."""


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an array as NIfTI, in millimeters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([1.0, 1.2, 1.5, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def save_scan(path: Path, seed: int) -> Path:
    """Write a small scan of noise."""
    return save_nifti(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def make_label(*values: int) -> np.ndarray:
    """Make a label of the size of `scan` with one voxel of each value."""
    label = np.zeros(SHAPE, np.uint8)
    label[2, 2, : len(values)] = values
    return label
