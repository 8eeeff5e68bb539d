"""Dice on hippocampus cases never seen, with 4 labelled ones, through the command line alone.

``python benchmarks/hippocampus.py --data FOLDER [--time-limit 5m] [--seed 0] [--method dycon]``

``FOLDER`` holds ``images/`` and ``labels/``. The first ``--labelled`` cases of
``numpy.random.default_rng(seed).permutation`` are labelled, the last ``--test`` ones are held out
and not part of the project, the rest is unlabelled. The result is printed and, with ``--record``,
appended to ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

COMMAND = [sys.executable, "-m", "napari_dycon"]
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    """Run the four commands and print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labelled", type=int, default=4)
    parser.add_argument("--test", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="dycon")
    parser.add_argument("--time-limit", default="5m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        row = measure(arguments, Path(scratch))
    print(row)
    if arguments.record:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(row + "\n")


def measure(arguments: argparse.Namespace, scratch: Path) -> str:
    """Return a row of the table in ``RESULTS.md``."""
    names = sorted(p.name for p in (arguments.data / "images").glob("*.nii.gz"))
    order = np.random.default_rng(arguments.seed).permutation(len(names))
    groups = {
        "images": order[: -arguments.test],
        "labels": order[: arguments.labelled],
        "test": order[-arguments.test :],
        "truth": order[-arguments.test :],
    }
    for folder, indices in groups.items():
        (scratch / folder).mkdir()
        source = "images" if folder in ("images", "test") else "labels"
        for index in indices:
            shutil.copyfile(arguments.data / source / names[index], scratch / folder / names[index])
    project = scratch / "project"
    call("new", project, "--images", scratch / "images", "--labels", scratch / "labels",
         "--classes", "anterior,posterior")  # fmt: skip
    events = call(
        "train", project, "--method", arguments.method, "--time-limit", arguments.time_limit,
        "--device", arguments.device, "--seed", arguments.seed,
        *(f"--set={pair}" for pair in arguments.set), "--json",
    )  # fmt: skip
    finished = json.loads(events.splitlines()[-1])
    started = json.loads(events.splitlines()[0])
    call("predict", project, "--images", scratch / "test", "--out", scratch / "out")
    scores = json.loads(call("evaluate", scratch / "out", scratch / "truth", "--json"))["summary"]
    classes = " / ".join(f"{c['dice']['mean']:.4f}" for c in scores["classes"].values())
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    cells = [
        datetime.now(UTC).strftime("%Y-%m-%d"),
        commit,
        f"{os.cpu_count()} cores {platform.machine()}, torch {version('torch')}, "
        f"{started['device']} {started['precision']}",
        f"{arguments.method}, {arguments.labelled} labelled, seed {arguments.seed}, "
        f"{arguments.time_limit}{' ' if arguments.set else ''}{' '.join(arguments.set)}",
        str(finished["step"]),
        f"**{scores['mean_dice']:.4f}** ± {scores['sd_dice']:.4f}",
        classes,
    ]
    return "| " + " | ".join(cells) + " |"


def call(*arguments: object) -> str:
    """Run a command and return its standard output."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
