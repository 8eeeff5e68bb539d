"""Measure the quality of a first label from strokes in five slices, and how many strokes it takes.

``python benchmarks/time_to_first_model.py --data shared/data/left-atrium [--cases 3] [--slices 5]``

Simulates an annotator with napari's own polygon tool on the label layer of the window. In slices
spread evenly over the structure, every connected component is outlined in one stroke, with corners
up to ``WOBBLE_MM`` off the true outline; then the slice is marked as complete with a click. The
slices just beyond both ends are marked as complete and empty. Then the label is completed by
interpolation between the slices, with and without following edges, or by growing, with the session
commands of the buttons. The true label serves only to simulate the strokes and to compute Dice.
Prints one row for each case.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from skimage.measure import approximate_polygon, find_contours
from skimage.measure import label as label_components

from napari_dycon import io
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.session import Session
from napari_dycon.widgets.layers.label_layer import CaseLabels

Mask = npt.NDArray[np.bool_]
WOBBLE_MM = 1.0
TOOLS = ("grow", "interpolate", "follow edges")
MIN_OUTLINED_PIXELS = 30  # annotators would not outline smaller components


def main() -> None:
    """Annotate some cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=3, help="the last ones by name")
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--value", type=int, default=1)
    arguments = parser.parse_args()
    files = sorted((arguments.data / "images").glob("*.nii.gz"))[-arguments.cases :]
    print(f"| case | strokes | clicks | {' | '.join(f'Dice {tool}' for tool in TOOLS)} | seconds |")
    print("|" + "---|" * (len(TOOLS) + 4))
    for file in files:
        truth = io.read_label(arguments.data / "labels" / file.name).array == arguments.value
        print(annotate(file, truth, arguments.slices))


def annotate(file: Path, truth: Mask, count: int) -> str:
    """Annotate one case with each tool; return a row of the table."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "images").mkdir()
        shutil.copyfile(file, folder / "images" / file.name)
        create_project(folder / "project", folder / "images", classes=["structure"])
        results = []
        for tool in TOOLS:
            session = Session()
            session.open_project(folder / "project")
            session.show_case(session.require_project().cases[0].id)
            view = session.require_case()
            view.label[:] = 255
            strokes, clicks = simulate_strokes(session, truth, count)
            begin = time.perf_counter()
            if tool == "grow":
                session.annotation.grow()
                session.annotation.accept_proposal()
            else:
                session.annotation.fill_between([1], axis=0, refine_to_edges=tool == "follow edges")
            seconds = time.perf_counter() - begin
            results.append((compute_dice(view.label == 1, truth), seconds, strokes, clicks))
            session.close_project()
        scores = " | ".join(f"{r[0]:.3f}" for r in results)
        _, seconds, strokes, clicks = results[-1]
        return f"| {file.name.split('.')[0]} | {strokes} | {clicks} | {scores} | {seconds:.1f} |"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def simulate_strokes(session: Session, truth: Mask, n_slices: int) -> tuple[int, int]:
    """Outline and fill the structure in some slices; return the numbers of strokes and clicks."""
    view = session.require_case()
    layer = CaseLabels(view.label, image=view.image.array, scale=view.image.spacing_mm)
    session.label_writer = layer.write_region
    layer.brush_size = 1
    shown = np.flatnonzero(truth.any(axis=(1, 2)))
    first, last = int(shown[0]), int(shown[-1])
    inset = 0.04 * (last - first)  # the structure is tiny in the outermost slices
    numbers = np.unique(np.round(np.linspace(first + inset, last - inset, n_slices)).astype(int))
    strokes = clicks = 0
    rng = np.random.default_rng(0)
    pixel = float(view.image.spacing_mm[1])
    for number in numbers.tolist():
        components, count = label_components(truth[number], return_num=True)
        for component in range(1, count + 1):
            inside = components == component
            if inside.sum() < MIN_OUTLINED_PIXELS:
                continue
            outline = max(find_contours(np.pad(inside, 1).astype(float), 0.5), key=len) - 1
            corners = approximate_polygon(outline, WOBBLE_MM / pixel)
            wobble = rng.uniform(-0.5, 0.5, corners.shape) * WOBBLE_MM / pixel
            corners = np.clip(corners + wobble, 0, np.array(truth.shape[1:]) - 1)
            corners[-1] = corners[0]
            layer.paint_polygon([np.array([number, *corner]) for corner in corners], 1)
            strokes += 1
        session.fill_background(number, 0)
        clicks += 1
    for number in (first - 1, last + 1):
        if 0 <= number < len(truth):
            session.fill_background(number, 0)
            clicks += 1
    return strokes, clicks


def compute_dice(mask: Mask, truth: Mask) -> float:
    """Return the Dice coefficient of two masks."""
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


if __name__ == "__main__":
    main()
