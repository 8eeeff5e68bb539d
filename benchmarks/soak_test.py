"""Check that memory and resources of a window do not grow in a long session.

``python benchmarks/soak_test.py --data FOLDER --work DIR [--rounds 200] [--cases 6]``

Opens the real window on scans of ``FOLDER/images``, trains a tiny network, and repeats: show a
case, paint, save, predict in an engine process, go to an uncertain region. Every round is logged
to stderr with its duration, most of which is the prediction: about 20 s for a left atrium on two
cores. Memory, threads, processes, open files, callbacks, layers and objects are counted every ten
rounds and printed as lines of JSON; at the end a table compares the last count with the one after
the first twenty rounds, in which caches fill. Memory should grow by less than 50 MB, and nothing
else should grow.
``DIR`` must not hold an ``images`` folder yet.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from _event_loop_latency import settle, wait

from napari_dycon.engine.config import make_config
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.widgets.app import make_window

WARM_UP_ROUNDS = 20  # caches fill in these
TINY: dict[str, Any] = {
    "device": "cpu",
    "batch.patch_size": [32, 32, 32],
    "network.filters": [4, 8, 8],
    "steps": 4,
    "batch.labeled_size": 1,
    "batch.unlabeled_size": 1,
}


def main() -> None:
    """Run all rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--cases", type=int, default=6)
    arguments = parser.parse_args()
    images = arguments.work / "images"
    images.mkdir(parents=True)
    for file in sorted((arguments.data / "images").iterdir())[: arguments.cases]:
        (images / file.name).symlink_to(file)
    create_project(arguments.work / "project", images, None, ["structure"])

    viewer, panel = make_window(arguments.work / "project")
    session = panel.session
    wait(lambda: session.project is not None)
    ids = [case.id for case in session.require_project().cases]
    paint_and_save(panel, ids[0])
    session.start_training(make_config("supervised", **TINY))
    wait(lambda: session.status.phase == "idle", 300)
    table = []
    for number in range(1, arguments.rounds + 1):
        start = time.perf_counter()
        case = ids[number % len(ids)]
        paint_and_save(panel, case)
        session.predict([case])
        wait(lambda: not session.review.is_predicting, 300)
        wait(lambda: session.require_case().prediction is not None)
        session.next_uncertain()
        duration_s = time.perf_counter() - start
        print(
            f"round {number} of {arguments.rounds}: {duration_s:.0f} s", file=sys.stderr, flush=True
        )
        if number % 10 == 0 or number == arguments.rounds:
            settle(1.0)
            table.append({"round": number, **count_resources(viewer)})
            print(json.dumps(table[-1]), flush=True)
    base = next(row for row in table if row["round"] >= min(WARM_UP_ROUNDS, arguments.rounds))
    last = table[-1]
    print("| | after the first rounds | at the end | growth |\n|---|---|---|---|")
    for name in base:
        print(f"| {name} | {base[name]} | {last[name]} | {last[name] - base[name]} |")
    panel.release()
    wait(lambda: panel.task_runner.is_idle)  # no event loop of napari waits for the workers
    viewer.close()


def paint_and_save(panel: Any, case: str) -> None:
    """Show a case, paint in it and wait until the label is saved."""
    session = panel.session
    session.show_case(case)
    wait(lambda: session.case is not None and session.case.id == case)
    settle(0.2)
    layer = panel.layers.find_layer("label")
    depth, height, width = layer.data.shape
    value = 1 if layer.data[depth // 2, height // 2, width // 2] != 1 else 0
    layer.brush_size = 6
    layer.paint((depth // 2, height // 2, width // 2), value)
    layer.paint((depth // 2 + 1, height // 2, width // 2), value)
    session.fill_background(depth // 2)
    session.save_label()
    wait(lambda: not session.has_unsaved_changes)
    wait(lambda: session.require_project().get_case(case).status != "unlabeled")


def count_resources(viewer: Any) -> dict[str, int]:
    """Return current counts of everything that could grow."""
    gc.collect()
    process = psutil.Process()
    return {
        "memory in MB": round(process.memory_info().rss / 2**20),
        "threads": process.num_threads(),
        "Python threads": threading.active_count(),
        "processes": len(process.children(recursive=True)),
        "open files": process.num_fds(),
        "callbacks": sum(len(emitter.callbacks) for emitter in iterate_emitters(viewer)),
        "layers": len(viewer.layers),
        "objects in thousands": len(gc.get_objects()) // 1000,
    }


def iterate_emitters(viewer: Any) -> Iterator[Any]:
    """Yield all event emitters of the viewer and its layers."""
    models = [viewer, viewer.layers, viewer.dims, viewer.cursor, viewer.scene.camera]
    for model in [*models, viewer.layers.selection, *viewer.layers]:
        yield from model.events.emitters.values()


if __name__ == "__main__":
    main()
