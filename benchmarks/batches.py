"""Measure the processor time of making a batch, and whether it grows with the number of cases.

``python benchmarks/batches.py [--shape 88 140 180] [--patch 112 112 80] [--cases 10 1000]``

Writes scans of noise in half precision to a temporary folder. Prints milliseconds of processor time
of one thread for a batch of two labeled and two unlabeled patches: for the first crops (which look
up the voxels of the structures), for later crops (which the host also makes for a GPU), and for the
augmentation on the CPU.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.patches import PatchBatchDataset


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(88, 140, 180))
    parser.add_argument("--patch", type=int, nargs=3, default=(112, 112, 80))
    parser.add_argument("--cases", type=int, nargs="+", default=(10, 100))
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        cases = _write(folder, tuple(arguments.shape), max(arguments.cases))
        print("| cases | first crops, ms | later crops, ms | augmentation, ms |\n|---|---|---|---|")
        for count in arguments.cases:
            _measure(cases[:count], tuple(arguments.patch), arguments.steps)
    finally:
        shutil.rmtree(folder)


def _write(folder: Path, shape: tuple[int, ...], count: int) -> list[LabeledCase]:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, *shape)).astype(np.float16)
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 4, n // 2) for n in shape)] = 1
    cases = []
    for number in range(count):
        case = LabeledCase(str(number), folder / f"{number}.npy", folder / f"{number}.label.npy")
        np.save(case.image, image)
        np.save(case.label, label)
        cases.append(case)
    return cases


def _measure(cases: list[LabeledCase], patch: tuple[int, ...], steps: int) -> None:
    config = make_config(
        "dycon", **{"batch.patch_size": list(patch), "network.filters": [8, 16, 32]}
    )
    unlabeled = [UnlabeledCase(case.id, case.image) for case in cases]
    batches = PatchBatchDataset(cases, unlabeled, config)
    cpu = torch.device("cpu")
    batches[0].augment(cpu)
    first = _milliseconds(lambda step: batches[step], range(1, steps))
    later = _milliseconds(lambda step: batches[step], range(1, steps))
    complete = _milliseconds(lambda step: batches[step].augment(cpu), range(1, steps))
    print(f"| {len(cases)} | {first:.1f} | {later:.1f} | {complete - later:.1f} |", flush=True)


def _milliseconds(call: Callable[[int], object], steps: range) -> float:
    begin = time.process_time()
    for step in steps:
        call(step)
    return (time.process_time() - begin) / len(steps) * 1e3


if __name__ == "__main__":
    main()
