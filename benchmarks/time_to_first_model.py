"""A first label from strokes on five slices: how good, after how many strokes.

``python benchmarks/time_to_first_model.py --data shared/data/left-atrium [--cases 3] [--slices 5]``

For each case a person's work is imitated with napari's own tool on the layer that the
window uses. On each of the slices, evenly spread over the structure: every piece is outlined in one
stroke of the polygon tool, with corners off the true outline by up to ``WOBBLE_MM`` and joined by
straight lines; then the slice is declared done with a click. The slices just beyond both ends are
declared empty. Then the program fills between the slices, with and without following edges, or
grows from them, through the same session commands as the buttons. The true label is used to draw
the strokes and to measure, and for nothing else.
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
from skimage.measure import label as pieces_of

from napari_dycon import io
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.session import Session
from napari_dycon.widgets.layers.label_layer import CaseLabels

Mask = npt.NDArray[np.bool_]
WOBBLE_MM = 1.0
WAYS = ("grown", "filled between", "following edges")
LEAST_PIXELS = 30  # smaller pieces nobody would outline


def main() -> None:
    """Annotate some cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=3, help="the last ones by name")
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--value", type=int, default=1)
    arguments = parser.parse_args()
    files = sorted((arguments.data / "images").glob("*.nii.gz"))[-arguments.cases :]
    print(f"| case | strokes | clicks | {' | '.join(f'Dice {way}' for way in WAYS)} | seconds |")
    print("|" + "---|" * (len(WAYS) + 4))
    for file in files:
        truth = io.read_label(arguments.data / "labels" / file.name).array == arguments.value
        print(annotate(file, truth, arguments.slices))


def annotate(file: Path, truth: Mask, count: int) -> str:
    """Annotate one case in three ways; returns a row of the table."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "images").mkdir()
        shutil.copyfile(file, folder / "images" / file.name)
        create_project(folder / "project", folder / "images", classes=["structure"])
        results = []
        for way in WAYS:
            session = Session()
            session.open_project(folder / "project")
            session.show_case(session.require_project().cases[0].id)
            view = session.require_case()
            view.label[:] = 255
            strokes, clicks = draw(session, truth, count)
            begin = time.perf_counter()
            if way == "grown":
                session.annotation.grow()
                session.annotation.accept_proposal()
            else:
                session.annotation.fill_between(
                    [1], axis=0, refine_to_edges=way == "following edges"
                )
            seconds = time.perf_counter() - begin
            results.append((dice(view.label == 1, truth), seconds, strokes, clicks))
            session.close_project()
        scores = " | ".join(f"{r[0]:.3f}" for r in results)
        _, seconds, strokes, clicks = results[-1]
        return f"| {file.name.split('.')[0]} | {strokes} | {clicks} | {scores} | {seconds:.1f} |"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def draw(session: Session, truth: Mask, count: int) -> tuple[int, int]:
    """Outline and fill the structure on some slices; returns strokes and clicks."""
    view = session.require_case()
    layer = CaseLabels(view.label, image=view.image.array, scale=view.image.spacing_mm)
    session.label_writer = layer.write_region
    layer.brush_size = 1
    shown = np.flatnonzero(truth.any(axis=(1, 2)))
    first, last = int(shown[0]), int(shown[-1])
    inset = 0.04 * (last - first)  # the outermost slices show hardly anything
    numbers = np.unique(np.round(np.linspace(first + inset, last - inset, count)).astype(int))
    strokes = clicks = 0
    rng = np.random.default_rng(0)
    pixel = float(view.image.spacing_mm[1])
    for number in numbers.tolist():
        pieces, found = pieces_of(truth[number], return_num=True)
        for piece in range(1, found + 1):
            inside = pieces == piece
            if inside.sum() < LEAST_PIXELS:
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


def dice(mask: Mask, truth: Mask) -> float:
    """Overlap of two masks."""
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


if __name__ == "__main__":
    main()
