"""Project of the GPU benchmark, from synthetic scans or from a folder of real ones."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project

SPACING_MM = 0.625
LABELED, VALIDATION, UNLABELED = 4, 2, 6
Shape = tuple[int, int, int]


def make_scan(seed: int, shape: Shape) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Synthesize a scan ``(D, H, W)`` with a bright chamber, its veins, and bright distractors.

    Parameters
    ----------
    seed : seed of the random numbers
    shape : voxels (D, H, W)

    Returns
    -------
    image, label : float32 and uint8 ``(D, H, W)``; the label is 1 in chamber and veins
    """
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    displacement = [
        ndimage.zoom(
            rng.normal(0, 0.1, (4, 4, 4)).astype(np.float32), [n / 4 for n in shape], order=1
        )
        for _ in range(3)
    ]
    z, y, x = (axis + field for axis, field in zip(grid, displacement, strict=True))

    def ball(center: tuple[float, ...], radii: tuple[float, ...]) -> npt.NDArray[np.bool_]:
        scaled = [(axis - c) / r for axis, c, r in zip((z, y, x), center, radii, strict=True)]
        return np.asarray(sum(part**2 for part in scaled) < 1)

    size = rng.uniform(0.9, 1.1)
    label = ball((0.0, 0.1, 0.0), (0.45 * size, 0.4 * size, 0.45 * size))
    for side in (-1, 1):
        for height in (-0.25, 0.25):
            center = (height, 0.1 + rng.uniform(-0.1, 0.1), 0.5 * side)
            label |= ball(center, (0.1, 0.12, 0.35))
    other = ball((0.1, -0.6, -0.2), (0.5, 0.25, 0.4)) | ball((0.0, 0.75, 0.1), (2.0, 0.15, 0.15))
    image = 1.0 * label + 1.1 * (other & ~label) + 0.3 * ball((0, 0, 0), (0.9, 0.9, 0.9))
    image = ndimage.gaussian_filter(image.astype(np.float32), 1.0)
    image += rng.normal(0, 0.15, shape).astype(np.float32)
    return image, label.astype(np.uint8)


def write_scans(folder: Path, shape: Shape) -> None:
    """Write synthetic scans to ``images/`` and all their labels to ``labels/``."""
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)

    def write(number: int) -> None:
        image, label = make_scan(number, shape)
        for name, array in (("images", image), ("labels", label)):
            stored = np.ascontiguousarray(array.T)
            nib.save(nib.Nifti1Image(stored, affine), folder / name / f"scan-{number:02d}.nii")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(LABELED + VALIDATION + UNLABELED)))


def make_project(work: Path, data: Path | None, shape: Shape) -> Project:
    """Make a project of the first scans of a folder, or of synthetic ones.

    Parameters
    ----------
    work : folder of the project and its scans
    data : folder with ``images/`` and ``labels/``; None: synthetic scans
    shape : voxels (D, H, W) of synthetic scans
    """
    if data is None:
        data = work / "synthetic"
        write_scans(data, shape)
    names = sorted(path.name for path in (data / "images").glob("*.nii*"))
    names = names[: LABELED + VALIDATION + UNLABELED]
    if len(names) <= LABELED + VALIDATION:
        raise ValueError(f"{data} has {len(names)} scan(s) in images/, too few")
    for group, count in (("images", len(names)), ("labels", LABELED + VALIDATION)):
        (work / group).mkdir()
        for name in names[:count]:
            shutil.copyfile(data / group / name, work / group / name)
    project = create_project(work / "project", work / "images", work / "labels")
    for case in [case.id for case in project.cases][LABELED : LABELED + VALIDATION]:
        project.set_split(case, "validation")
    return project
