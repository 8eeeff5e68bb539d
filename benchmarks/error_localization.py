"""Do the suggested places lead to the errors? Against random places in what was predicted.

``python benchmarks/error_localization.py PREDICTIONS REFERENCES [--places 10]``

``PREDICTIONS`` holds ``NAME.nii.gz`` and ``NAME_uncertainty.nii.gz``, as ``napari-dycon predict``
writes them, ``REFERENCES`` the true labels. Errors are the connected components of wrongly
predicted voxels of more than 0.1 ml, connected by faces (6 neighbors) or also by corners (26),
where one error often is a whole shell around the organ. A place finds a component when one of its
voxels lies within a few millimeters of it. Random places are drawn evenly among the predicted
organ's voxels, twenty times.
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

LEAST_ML = 0.1
DRAWS = 20
NEIGHBORS = {6: None, 26: np.ones((3, 3, 3))}
REACHES = (0.0, 1.0, 2.0, 5.0)
Array = npt.NDArray[Any]


def main() -> None:
    """Print a table and the totals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("references", type=Path)
    parser.add_argument("--places", type=int, default=10)
    arguments = parser.parse_args()
    names = sorted(p.name for p in arguments.references.glob("*.nii.gz"))
    totals = {(n, reach): np.zeros(3) for n in NEIGHBORS for reach in REACHES}
    for name in names:
        for key, found in measure(arguments, name).items():
            totals[key] += found
    print(
        f"{len(names)} cases, the first {arguments.places} suggested places against random ones\n"
    )
    print("| neighbors | within mm | errors | found by suggested places | by random ones | ratio |")
    print("|---|---|---|---|---|---|")
    for (neighbors, reach), (errors, suggested, random) in totals.items():
        print(
            f"| {neighbors} | {reach:g} | {errors:.0f} | {suggested / max(errors, 1):.1%} "
            f"| {random / max(errors, 1):.1%} | {suggested / max(random, 1e-9):.2f} |"
        )


def measure(arguments: argparse.Namespace, name: str) -> dict[tuple[int, float], Array]:
    """Errors of a case, how many suggested places find, and how many random ones."""
    reference = io.read_label(arguments.references / name)
    mask = io.read_label(arguments.predictions / name).array
    maps = name.replace(".nii.gz", "_uncertainty.nii.gz")
    uncertainty = io.read_map(arguments.predictions / maps)
    spacing = np.array(reference.spacing_mm)
    spots = find_hotspots(uncertainty, tuple(spacing))[: arguments.places]
    organ = np.argwhere(mask > 0)
    rng = np.random.default_rng(0)
    draws = [
        organ[rng.integers(len(organ), size=arguments.places)]
        for _ in range(DRAWS if len(organ) else 0)
    ]
    result = {}
    for neighbors, structure in NEIGHBORS.items():
        pieces, count = ndimage.label(mask != reference.array, structure=structure)
        sizes = np.bincount(pieces.reshape(-1))[1:] * float(np.prod(spacing)) / 1000
        errors = [
            cKDTree(np.argwhere(pieces == number + 1) * spacing)
            for number in range(count)
            if sizes[number] > LEAST_ML
        ]
        for reach in REACHES:
            suggested = hits([spot.center for spot in spots], errors, spacing, reach)
            random = [hits(places, errors, spacing, reach) for places in draws]
            mean = float(np.mean(random)) if random else 0.0
            result[neighbors, reach] = np.array([len(errors), suggested, mean])
    return result


def hits(places: Sequence[Any] | Array, errors: list[Any], spacing: Array, reach: float) -> int:
    """How many errors have one of the places near them."""
    if not len(places):
        return 0
    at = np.asarray(places) * spacing
    return sum(bool((error.query(at)[0] <= reach).any()) for error in errors)


if __name__ == "__main__":
    main()
