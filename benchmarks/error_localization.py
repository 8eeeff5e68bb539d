"""Measure how many prediction errors lie at suggested uncertain regions, compared with random
positions.

``python benchmarks/error_localization.py PREDICTIONS REFERENCES [--regions 10]``

``PREDICTIONS`` holds ``NAME.nii.gz`` and ``NAME_uncertainty.nii.gz``, as ``napari-dycon predict``
writes them, ``REFERENCES`` the true labels. Errors are connected components of wrongly predicted
voxels of more than 0.1 ml, with 6 neighbors or with 26, where one error is often a complete shell
around the organ. A region finds an error if one of its voxels is within some millimeters of the
center of the region. Random positions are drawn uniformly from the voxels of the predicted organ,
twenty times. Prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_dycon import io
from napari_dycon.application.hotspots import find_hotspots

MIN_ERROR_ML = 0.1
RANDOM_DRAWS = 20
NEIGHBORS = {6: None, 26: np.ones((3, 3, 3))}
DISTANCES_MM = (0.0, 1.0, 2.0, 5.0)
Array = npt.NDArray[Any]


def main() -> None:
    """Print the totals over all cases as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("references", type=Path)
    parser.add_argument("--regions", type=int, default=10)
    arguments = parser.parse_args()
    names = sorted(p.name for p in arguments.references.glob("*.nii.gz"))
    totals = {(n, distance): np.zeros(3) for n in NEIGHBORS for distance in DISTANCES_MM}
    for name in names:
        for key, counts in measure(arguments, name).items():
            totals[key] += counts
    print(
        f"{len(names)} cases, "
        f"the first {arguments.regions} suggested regions against random positions\n"
    )
    print(
        "| neighbors | within mm | errors | found by suggested regions | by random ones | ratio |"
    )
    print("|---|---|---|---|---|---|")
    for (neighbors, distance), (errors, suggested, random) in totals.items():
        print(
            f"| {neighbors} | {distance:g} | {errors:.0f} | {suggested / max(errors, 1):.1%} "
            f"| {random / max(errors, 1):.1%} | {suggested / max(random, 1e-9):.2f} |"
        )


def measure(arguments: argparse.Namespace, name: str) -> dict[tuple[int, float], Array]:
    """Count the errors of a case and those found by suggested and by random positions."""
    reference = io.read_label(arguments.references / name)
    mask = io.read_label(arguments.predictions / name).array
    maps = name.replace(".nii.gz", "_uncertainty.nii.gz")
    uncertainty = io.read_map(arguments.predictions / maps)
    spacing_mm = np.array(reference.spacing_mm)
    hotspots = find_hotspots(uncertainty, tuple(spacing_mm))[: arguments.regions]
    organ = np.argwhere(mask > 0)
    rng = np.random.default_rng(0)
    draws = [
        organ[rng.integers(len(organ), size=arguments.regions)]
        for _ in range(RANDOM_DRAWS if len(organ) else 0)
    ]
    result = {}
    for neighbors, structure in NEIGHBORS.items():
        components, count = ndimage.label(mask != reference.array, structure=structure)
        sizes = np.bincount(components.reshape(-1))[1:] * float(np.prod(spacing_mm)) / 1000
        errors = [
            cKDTree(np.argwhere(components == number + 1) * spacing_mm)
            for number in range(count)
            if sizes[number] > MIN_ERROR_ML
        ]
        for distance in DISTANCES_MM:
            suggested = count_found_errors(
                [hotspot.center for hotspot in hotspots], errors, spacing_mm, distance
            )
            random = [
                count_found_errors(positions, errors, spacing_mm, distance) for positions in draws
            ]
            mean = float(np.mean(random)) if random else 0.0
            result[neighbors, distance] = np.array([len(errors), suggested, mean])
    return result


def count_found_errors(
    positions: Sequence[Any] | Array, errors: list[Any], spacing_mm: Array, distance_mm: float
) -> int:
    """Count the errors that have one of the positions within a distance."""
    if not len(positions):
        return 0
    points_mm = np.asarray(positions) * spacing_mm
    return sum(bool((error.query(points_mm)[0] <= distance_mm).any()) for error in errors)


if __name__ == "__main__":
    main()
