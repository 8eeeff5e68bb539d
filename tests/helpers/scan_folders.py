"""Folders of scans for tests of discovery, and a run on a project of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from helpers.nifti_files import save_nifti
from helpers.tiny_runs import TINY
from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.config import make_config
from napari_dycon.engine.inference.predict_scans import predict_cases
from napari_dycon.engine.training.run import train
from napari_dycon.project.importing.discovery import (
    find_scans,
)
from napari_dycon.project.store import Project

SHAPE = (6, 7, 8)


def save_scan(path: Path, seed: int = 0, affine: np.ndarray | None = None) -> Path:
    noise = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    return save_nifti(path, noise, affine)


def list_names(folder: Path) -> list[str]:
    return [found.name for found in find_scans(folder, "images")]


def train_and_predict(project: Project, case: str) -> None:
    """Train for two steps, predict a case, and find mask and map on the scan's grid."""
    settings = TINY | {"steps": 2}
    events = list(train(project, make_config("dycon", **settings)))
    assert events[-1].event == "finished"
    run = project.runs.get()
    model = load_model(run.weights_path, torch.device("cpu"))
    cpu = torch.device("cpu")
    (event,) = predict_cases(project, run.id, model, [case], cpu, torch.float32)
    assert event.case == case
    mask = project.predictions.read(run.id, case)
    assert mask.shape == project.read_image(case).shape
