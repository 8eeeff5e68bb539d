"""Projects for ``window.py``: one of many small cases, and one of typical scans."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon import io
from napari_dycon.io.volume import Source, Volume
from napari_dycon.project import manifest
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.models import classes_from_names
from napari_dycon.project.store import Project

DISTINCT = 8  # files, shared by the cases of the large project
RUNS = 3
FEATURES = 128  # length of the embedding of a scan


def make_many(folder: Path, count: int) -> Path:
    """Create a project of ``count`` tiny scans: a quarter labeled, all predicted by three runs."""
    rng = np.random.default_rng(0)
    project = Project.create(folder / "many", classes=classes_from_names(["structure"]))
    pool, images = folder / "pool", folder / "many-images"
    pool.mkdir()
    images.mkdir()
    scans, labels, maps = [], [], []
    for number in range(DISTINCT):
        volume = make_volume(rng.normal(100, 20, (16, 24, 24)).astype(np.int16), (2.0, 1.0, 1.0))
        label = np.zeros(volume.shape, np.uint8)
        label[4:12, 6:18, 6:18] = 1
        scans.append(pool / f"scan-{number}.nii.gz")
        labels.append(pool / f"label-{number}.nii.gz")
        maps.append(pool / f"map-{number}.nii.gz")
        io.write_volume(volume.array, reference=volume, path=scans[-1])
        io.write_mask(label, reference=volume, path=labels[-1])
        uncertainty = rng.uniform(0, 1, volume.shape).astype(np.float32)
        io.write_map(uncertainty, reference=volume, path=maps[-1])
    cases: list[dict[str, Any]] = []
    for number in range(count):
        name = f"case-{number:05d}"
        os.link(scans[number % DISTINCT], images / f"{name}.nii.gz")
        labeled = number % 4 == 0
        if labeled:
            os.link(labels[number % DISTINCT], project.path / "labels" / f"{name}.nii.gz")
        status = "labeled" if labeled else "unlabeled"
        path = f"../many-images/{name}.nii.gz"
        cases.append({"id": name, "images": [path], "status": status})
    manifest.edit_manifest(project.path, lambda values: values["cases"].extend(cases))
    for _ in range(RUNS):
        run = project.runs.create("dycon", {"method": "dycon"})
        predictions = project.path / "predictions" / run.id
        predictions.mkdir(parents=True)
        for number in range(count):
            name = f"case-{number:05d}"
            os.link(labels[number % DISTINCT], predictions / f"{name}.nii.gz")
            for kind in ("uncertainty", "disagreement"):
                os.link(maps[number % DISTINCT], predictions / f"{name}_{kind}.nii.gz")
            features = [round(float(value), 5) for value in rng.normal(0, 1, FEATURES)]
            metadata = {"score": float(rng.uniform(0.1, 0.6)), "features": features}
            (predictions / f"{name}.json").write_text(json.dumps(metadata), encoding="utf-8")
    return project.path


def make_typical(folder: Path, data: Path | None, large: tuple[int, int, int]) -> Path:
    """Create a project of three scans of left atria, or similar ones, and two of ``large`` voxels.

    The first two of each kind have scribbles and a prediction with a wide uncertain margin.

    Parameters
    ----------
    data : folder with ``images`` and ``labels``; without it both are synthesized
    """
    images, labels = folder / "images", folder / "labels"
    images.mkdir()
    labels.mkdir()
    for number in range(3):
        name = f"atrium-{number}.nii.gz"
        if data is not None:
            file = sorted((data / "images").glob("*.nii.gz"))[-1 - number]
            shutil.copyfile(file, images / name)
            shutil.copyfile(data / "labels" / file.name, labels / name)
        else:
            _write_blob(images / name, labels / name, (88, 140, 180), 1.0, number)
    for number in range(2):
        name = f"large-{number}.nii.gz"
        _write_blob(images / name, labels / name, large, 0.7, number)
    project = create_project(folder / "typical", images, classes=["atrium"])
    run = project.runs.create("dycon", {"method": "dycon"})
    for case in project.cases:
        if case.id == "atrium-2":
            continue
        truth = (io.read_label(labels / f"{case.id}.nii.gz").array > 0).astype(np.uint8)
        edge = ndimage.gaussian_filter(truth.astype(np.float32), 3)
        uncertainty_map = (4 * edge * (1 - edge)).astype(np.float32)
        project.predictions.write(run.id, case.id, truth, uncertainty_map, uncertainty_map / 2)
        label = np.full(truth.shape, 255, np.uint8)
        label[::12] = truth[::12]
        project.labels.save(case.id, label)
    return project.path


def make_volume(array: npt.NDArray[Any], spacing_mm: tuple[float, float, float]) -> Volume:
    """Return a volume ``(D, H, W)`` on an axis-aligned grid."""
    depth, height, width = spacing_mm
    affine = np.diag([-width, -height, depth, 1.0])
    return Volume(array, affine, Source(None, array.shape[::-1], affine))


def _write_blob(
    image: Path, label: Path, shape: tuple[int, int, int], spacing: float, seed: int
) -> None:
    """Write a noisy ellipsoid and its mask."""
    rng = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(-1, 1, complex(0, n)) for n in shape)]
    mask = np.asarray(sum(axis**2 for axis in axes) < 0.3).astype(np.uint8)
    array = (rng.normal(100, 25, shape) + 60 * mask).astype(np.int16)
    volume = make_volume(array, (spacing, spacing, spacing))
    io.write_volume(array, reference=volume, path=image)
    io.write_mask(mask, reference=volume, path=label)
