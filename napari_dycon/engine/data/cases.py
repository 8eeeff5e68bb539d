"""Preprocessed cases of a run: paths of scans, with or without a label.

The type of an unlabeled case has no label, which rules out label leakage downstream.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class UnlabeledCase:
    """A preprocessed scan: path of a float32 or float16 ``.npy``, ``(C, D, H, W)``."""

    id: str
    image: Path


@dataclass(frozen=True)
class LabeledCase:
    """A preprocessed scan with its label: paths of ``.npy`` files.

    The image is float32 or float16, ``(C, D, H, W)``; the label is uint8 ``(D, H, W)``, 255 where
    a voxel is unannotated.
    """

    id: str
    image: Path
    label: Path
