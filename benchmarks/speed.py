"""Measure time and memory of a training step and of a prediction, compared with a plain reference.

``python benchmarks/speed.py [--threads N] [--pairs N] [--norm group|instance] [--quick]``

The reference (``_plain_reference.py``) computes the same network and losses in a straightforward
way, and predicts with the sliding window of the published evaluation (112 x 112 x 80 voxels, stride
18 x 18 x 4). Each variant runs in its own process with the memory settings of a training run; the
processes take steps in turn, and medians are reported.

Seconds are processor seconds of all threads, which are comparable on a machine that runs other
programs; with more than one thread they include waiting times between threads. Memory is the peak
resident size (``VmHWM``) above the size before the first step, available on Linux only. If memory
is short, training runs return freed memory at once (*least memory*) and compute features twice
(*checkpointing*).

For a prediction one window is timed, and multiplied by the number of windows of a scan. Scans per
minute are computed from the processor seconds divided by the threads. Prints a table and one line
of JSON, which ``benchmarks/results/speed.json`` holds.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from _plain_reference import PUBLISHED_STRIDE, PUBLISHED_WINDOW, PlainStepper, forward

from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.patches import Batch, LabeledBatch, PatchBatchDataset, UnlabeledBatch
from napari_dycon.engine.device import is_bfloat16_faster, reset_glibc_malloc, tune_glibc_malloc
from napari_dycon.engine.inference.windows import plan_windows
from napari_dycon.engine.methods import build_method
from napari_dycon.engine.network import SegmentationNetwork, build_network
from napari_dycon.engine.training.optimizer import allocate_state, build_optimizer
from napari_dycon.engine.training.stepper import Stepper

SCAN = (96, 160, 160)  # voxels of the predicted scan
METHODS = ("supervised", "dycon")
Step = Callable[[], object]


def main() -> None:
    """Print a table and a line of JSON, or run the worker process of one variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5, help="measured steps of each variant")
    parser.add_argument("--norm", choices=("group", "instance"), default="group")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--quick", action="store_true", help="a small network, to test this script")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.worker:
        run_worker(arguments)
        return
    rows = [row for method in arguments.methods for row in measure_steps(arguments, method)]
    rows += measure_prediction(arguments)
    batch_seconds = measure_batches(make_settings(arguments, "dycon"))
    print("| | variant | seconds | speedup | peak, MB | relative memory | scans/min |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        values = [row["task"], row["variant"], f"{row['seconds']:.3f}", f"{row['speedup']:.2f}"]
        for key, form in (("peak_mb", ".0f"), ("memory_share", ".2f"), ("scans_per_minute", ".2f")):
            values.append(format(row[key], form) if key in row else "")
        print("| " + " | ".join(map(str, values)) + " |")
    print(f"\nMaking a batch takes {batch_seconds:.3f} s.")
    print(json.dumps({**describe_run(arguments), "batch_seconds": batch_seconds, "rows": rows}))


def make_settings(arguments: argparse.Namespace, method: str) -> TrainConfig:
    """Return the settings of the steps that are compared."""
    size = [32] * 3 if arguments.quick else [64] * 3
    filters = [8, 16, 32, 32] if arguments.quick else [16, 32, 64, 128, 256]
    return make_config(
        method,
        **{
            "network.filters": filters,
            "network.half_resolution": False,
            "batch.patch_size": size,
            "network.norm": arguments.norm,
        },
    )


def make_batch(config: TrainConfig) -> Batch:
    """Make two labeled and two unlabeled patches of noise."""
    assert config.batch.patch_size is not None
    image = torch.randn(4, 1, *config.batch.patch_size)
    smooth = torch.nn.functional.avg_pool3d(torch.randn(2, 1, *config.batch.patch_size), 9, 1, 4)
    center, extent = torch.full((2, 3), 0.5), torch.full((2, 3), 0.5)
    return Batch(
        LabeledBatch(image[:2].clone(), (smooth[:, 0] > 0).long(), center, extent),
        UnlabeledBatch(image[2:].clone(), center, extent),
    )


def prepare(config: TrainConfig, variant: str) -> Step:
    """Return a function that takes one step of a variant."""
    torch.manual_seed(0)
    network, batch = build_network(config, 1, 2), make_batch(config)
    if variant == "plain":
        stepper = PlainStepper(network, config)
        noise = (
            torch.randn(4, 1, *config.batch.patch_size or ())
            * config.semi_supervised.teacher_noise_std
        )
        return lambda: stepper.step(batch, None if config.method == "supervised" else noise)
    dtype, _, saving = variant.partition("-")
    reset_glibc_malloc() if saving else tune_glibc_malloc()
    config = config.with_changes({"batch.activation_checkpointing": saving == "checkpointing"})
    return prepare_package_step(config, network, batch, getattr(torch, dtype))


def prepare_package_step(
    config: TrainConfig, student: SegmentationNetwork, batch: Batch, dtype: torch.dtype
) -> Step:
    """Return a function that takes one step with this package."""
    student.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = build_optimizer(config, student)
    allocate_state(optimizer)
    stepper = Stepper(student, teacher, optimizer, torch.device("cpu"), dtype)
    method = build_method(config)
    return lambda: stepper.step(100, config, method, batch, 1.0, config.optimizer.learning_rate)


def run_worker(arguments: argparse.Namespace) -> None:
    """Take a step for every line of standard input; print its processor seconds and the peak."""
    method, variant = arguments.worker.split(":")
    step = prepare(make_settings(arguments, method), variant)
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    for _ in sys.stdin:
        begin = time.process_time()
        step()
        seconds = time.process_time() - begin
        print(json.dumps([seconds, read_status("VmHWM") - before]), flush=True)


def read_status(name: str) -> float:
    """Return a size of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the system does not report {name}")


def measure_steps(arguments: argparse.Namespace, method: str) -> list[dict[str, object]]:
    """Measure steps of all variants in turn, without the first of each."""
    variants = ["plain", "float32", "float32-least memory", "float32-checkpointing"]
    variants += ["bfloat16"] if is_bfloat16_faster() else []
    command = [sys.executable, *sys.argv, "--worker"]
    workers = [
        subprocess.Popen(
            [*command, f"{method}:{variant}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for variant in variants
    ]
    taken: list[list[list[float]]] = [[] for _ in workers]
    for _ in range(1 + arguments.pairs):
        for worker, steps in zip(workers, taken, strict=True):
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("step\n")
            worker.stdin.flush()
            steps.append(json.loads(worker.stdout.readline()))
    for worker in workers:
        worker.communicate()
    plain = [seconds for seconds, _ in taken[0][1:]]
    plain_peak = taken[0][-1][1]
    rows = []
    for variant, steps in zip(variants, taken, strict=True):
        measured = [seconds for seconds, _ in steps[1:]]
        ratios = [a / b for a, b in zip(plain, measured, strict=True)]
        row: dict[str, object] = {"task": f"{method} step", "variant": variant}
        row |= {"seconds": statistics.median(measured), "speedup": statistics.median(ratios)}
        row |= {"peak_mb": steps[-1][1], "memory_share": steps[-1][1] / plain_peak}
        rows.append(row)
    return rows


@torch.no_grad()
def measure_prediction(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Time one window of both kinds in turn, and multiply by the windows of a scan."""
    config = make_settings(arguments, "dycon")
    assert config.batch.patch_size is not None
    plain = build_network(config, 1, 2).eval()
    network = copy.deepcopy(plain).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    windows = plan_windows(SCAN, config.batch.patch_size, side=1.0)
    published = torch.randn(1, 1, *PUBLISHED_WINDOW)
    window = torch.randn(1, 1, *windows.size)
    axes = zip((SCAN[1], SCAN[2], SCAN[0]), PUBLISHED_WINDOW, PUBLISHED_STRIDE, strict=True)
    count = math.prod(-(-max(n - side, 0) // stride) + 1 for n, side, stride in axes)
    pairs = [
        (
            count * measure(lambda: forward(plain, published)[0].softmax(1)),
            math.prod(windows.counts) * measure(lambda: network(window).logits.softmax(1)),
        )
        for _ in range(1 + min(arguments.pairs, 3))
    ][1:]
    name = f"prediction, {'x'.join(map(str, SCAN))} voxels"
    rows = []
    for index, variant in enumerate(("published windows", "float32")):
        seconds = statistics.median(pair[index] for pair in pairs)
        speedup = statistics.median(pair[0] / pair[index] for pair in pairs)
        row: dict[str, object] = {"task": name, "variant": variant, "seconds": seconds}
        row |= {"speedup": speedup, "scans_per_minute": 60 * arguments.threads / seconds}
        rows.append(row)
    return rows


def measure_batches(config: TrainConfig, steps: int = 10) -> float:
    """Return the median processor seconds of a batch, from scans of noise."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        image, label = Path(folder) / "image.npy", Path(folder) / "label.npy"
        np.save(image, rng.normal(size=(1, *SCAN)).astype(np.float16))
        mask = np.zeros(SCAN, np.uint8)
        mask[20:40, 40:80, 40:80] = 1
        np.save(label, mask)
        cases = [LabeledCase(str(i), image, label) for i in range(4)]
        batches = PatchBatchDataset(cases, [UnlabeledCase(c.id, c.image) for c in cases], config)
        cpu = torch.device("cpu")
        return statistics.median(
            measure(functools.partial(_make_batch, batches, i, cpu)) for i in range(steps)
        )


def _make_batch(batches: PatchBatchDataset, index: int, device: torch.device) -> Batch:
    return batches[index].augment(device)


def measure(call: Callable[[], object]) -> float:
    """Return the processor seconds of a call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def describe_run(arguments: argparse.Namespace) -> dict[str, object]:
    """Return machine, versions, commit and command."""
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line for line in lines if line.startswith("model name")), "").partition(": ")[2]
    return {
        "machine": {"processor": model, "cores": os.cpu_count(), "system": platform.platform()},
        "threads": arguments.threads,
        "versions": {n: metadata.version(n) for n in ("napari-dycon", "torch", "monai")},
        "commit": git.stdout.strip(),
        "command": " ".join(sys.argv),
    }


if __name__ == "__main__":
    main()
