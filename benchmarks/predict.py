"""Ways to predict a scan: processor seconds and Dice of each structure, same networks, same scans.

``python benchmarks/predict.py --data demo|hippocampus|left-atrium --work DIR [--seeds 0 1 2]
[--steps 1000] [--scans 10] [--precision float32] [--set spacing=[1.25,1.25,1.25]]``

A network is trained for each seed (kept in ``DIR`` and not trained again), with four labeled cases.
``demo`` is the synthetic cohort; the others are read from ``$NAPARI_DYCON_DATA``. Scans that
predictions are made for take no part in training. Each way runs on one thread:

- ``overlapping``: windows of the patch that overlap by half, edges repeated to fill the last ones,
  both networks in three sizes each: what this program did before.
- ``published``: student and teacher, windows of the patch, of which one follows the other after 18,
  18 and 4 voxels (x, y, z), one at a time: how the left atrium's published figures are evaluated.
- ``one size``, ``patch windows``, ``larger windows``, ``whole``: windows that overlap by a quarter
  of a patch; student and teacher each see one size, the latter a smaller one but in ``one size``.
  Windows are as large as patches, a quarter longer, or as the scan.
- ``default``: as patch windows or larger ones, as was decided when the run ended.
- ``with atlases``: the default with label fusion, where the preset has it.

Differences are paired: network by network and scan by scan, with their standard error. Printed are
one table and one JSON line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data.utils import dense_patch_slices
from monai.inferers import sliding_window_inference
from torch import Tensor

from napari_dycon.demo.synthetic import CLASSES, write_cohort
from napari_dycon.engine.atlas.templates import attach_atlases
from napari_dycon.engine.checkpoints.model_file import TrainedModel, load_model
from napari_dycon.engine.data.preprocessing import prepare_image
from napari_dycon.engine.inference import predict
from napari_dycon.engine.inference.window_choice import LARGER_SIDE
from napari_dycon.io import read_label
from napari_dycon.io.volume import Volume
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.discovery import read_scan
from napari_dycon.project.store import Project

CPU = torch.device("cpu")
LABELED = 4
PUBLISHED_STRIDE = (4, 18, 18)  # z, y, x
REFERENCE = "overlapping"
Way = Callable[[TrainedModel, Volume, torch.dtype], np.ndarray[Any, Any]]


def main() -> None:
    """Train what is missing, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=("demo", "hippocampus", "left-atrium"), default="demo")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--scans", type=int, default=10)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--ways", nargs="+", default=[*WAYS, "with atlases"])
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dtype = getattr(torch, arguments.precision)
    found: dict[str, list[Any]] = {way: [] for way in arguments.ways}
    names: list[str] = []
    for seed in arguments.seeds:
        project, scans = prepare(arguments, seed)
        run = train(arguments, project, seed)
        names = [c.name for c in project.classes]
        model = load_model(run.weights_path)
        for way in arguments.ways:
            used = model
            if way == "with atlases":
                used = attach_atlases(project, run, model, CPU, dtype, lambda _: None)
            found[way].append([measure(used, way, *scan, dtype) for scan in scans])
            print(f"seed {seed}, {way}: done", file=sys.stderr, flush=True)
    report(arguments, names, found)


def prepare(arguments: argparse.Namespace, seed: int) -> tuple[Project, list[tuple[Path, Path]]]:
    """Project of a seed, and scans with their truth that it does not know."""
    folder = arguments.work / f"{arguments.data}-{seed}"
    scans = folder / "scans"
    if not scans.exists():
        shutil.rmtree(folder, ignore_errors=True)
        images, labels, names, classes = source(arguments, seed)
        groups = {"images": names[: -arguments.scans], "labels": names[:LABELED]}
        for group, chosen in groups.items():
            (folder / group).mkdir(parents=True, exist_ok=True)
            for name in chosen:
                shutil.copyfile((images, labels)[group == "labels"] / name, folder / group / name)
        create_project(folder / "project", folder / "images", folder / "labels", classes)
        for group, origin in (("scans", images), ("truth", labels)):
            (folder / f"{group}.new").mkdir(exist_ok=True)
            for name in names[-arguments.scans :]:
                shutil.copyfile(origin / name, folder / f"{group}.new" / name)
        (folder / "truth.new").rename(folder / "truth")
        (folder / "scans.new").rename(scans)
    pairs = [(path, folder / "truth" / path.name) for path in sorted(scans.iterdir())]
    return Project.open(folder / "project"), pairs


def source(arguments: argparse.Namespace, seed: int) -> tuple[Path, Path, list[str], list[str]]:
    """Folders of scans and of labels, names in the order of their use, and the structures."""
    if arguments.data == "demo":
        cohort = arguments.work / "cohort"
        if not (cohort / "truth").exists():
            write_cohort(cohort, cases=14 + arguments.scans)
        names = sorted(path.name for path in (cohort / "images").iterdir())
        return cohort / "images", cohort / "truth", names, list(CLASSES)
    data = Path(os.environ["NAPARI_DYCON_DATA"]) / arguments.data
    names = sorted(path.name for path in (data / "images").iterdir())
    if arguments.data == "left-atrium":  # its order is the published one
        return data / "images", data / "labels", names, ["atrium"]
    order = np.random.default_rng(seed).permutation(len(names))
    return data / "images", data / "labels", [names[i] for i in order], ["anterior", "posterior"]


def train(arguments: argparse.Namespace, project: Project, seed: int) -> Any:
    """The finished run of a seed, trained in a process of its own where it is missing."""
    finished = [run for run in project.runs.list() if run.metrics_path.exists()]
    if not finished:
        words = [sys.executable, "-m", "napari_dycon", "train", project.path, "--json"]
        words += ["--steps", arguments.steps, "--seed", seed, "--device", "cpu"]
        words += [f"--set={pair}" for pair in arguments.set]
        subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
        finished = [run for run in project.runs.list() if run.metrics_path.exists()]
    return finished[-1]


def measure(
    model: TrainedModel, way: str, image: Path, truth: Path, dtype: torch.dtype
) -> tuple[float, list[float]]:
    """Processor seconds of one scan, and Dice of each structure."""
    volume = read_scan([image], image.name)
    label = read_label(truth, reference=volume).array
    begin = time.process_time()
    if way == "with atlases":
        mask = predict.predict_volume(model, volume, CPU, dtype).mask
    else:
        mask = WAYS[way](dataclasses.replace(model, atlases=()), volume, dtype)
    seconds = time.process_time() - begin
    dice = []
    for value in model.class_values:
        a, b = mask == value, label == value
        dice.append(2 * float((a & b).sum()) / max(float(a.sum() + b.sum()), 1.0))
    return seconds, dice


def as_mask(model: TrainedModel, probabilities: Tensor, volume: Volume) -> np.ndarray[Any, Any]:
    """Label values ``(D, H, W)`` of probabilities on any grid over the scan."""
    if tuple(probabilities.shape[1:]) != volume.shape:
        probabilities = F.interpolate(
            probabilities[None], size=volume.shape, mode="trilinear", align_corners=False
        )[0]
    values = np.array([0, *model.class_values], np.uint8)
    return np.asarray(values[probabilities.argmax(dim=0).numpy()])


def both_networks(model: TrainedModel, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Student's and teacher's mean softmax output of a window."""

    def compute(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            logits = [network(x).logits.float() for network in (model.student, model.teacher)]
        return (F.softmax(logits[0], dim=1) + F.softmax(logits[1], dim=1)) / 2

    return compute


@torch.inference_mode()
def predict_overlapping(
    model: TrainedModel, volume: Volume, dtype: torch.dtype
) -> np.ndarray[Any, Any]:
    """Windows of the patch overlapping by half, three sizes, both networks."""
    image = torch.from_numpy(prepare_image(volume, model.config))
    patch, stride = model.config.batch.patch_size, model.config.network.stride
    assert patch is not None
    total = torch.zeros(1)
    for scale in (1.0, 0.93, 1.07):
        size = [max(round(n * scale), 1) for n in image.shape[1:]]
        view = F.interpolate(image[None], size=size, mode="trilinear", align_corners=False)
        whole = tuple(-(-n // stride) * stride for n in size)
        window = whole if math.prod(whole) <= 2 * math.prod(patch) else patch
        stitched = sliding_window_inference(
            view,
            roi_size=window,
            sw_batch_size=1,
            predictor=both_networks(model, dtype),
            overlap=0.5,
            mode="gaussian",
            padding_mode="replicate",
        )
        total = total + F.interpolate(
            stitched, size=volume.shape, mode="trilinear", align_corners=False
        )
    return as_mask(model, total[0], volume)


@torch.inference_mode()
def predict_published(
    model: TrainedModel, volume: Volume, dtype: torch.dtype
) -> np.ndarray[Any, Any]:
    """Mean of dense windows of the patch, one at a time; edges of smaller scans are repeated."""
    image = torch.from_numpy(prepare_image(volume, model.config))
    patch = model.config.batch.patch_size
    assert patch is not None
    shape = image.shape[1:]
    missing = [max(side - length, 0) for length, side in zip(shape, patch, strict=True)]
    padding = [n for length in reversed(missing) for n in (length // 2, length - length // 2)]
    padded = F.pad(image[None], padding, mode="replicate")
    compute = both_networks(model, dtype)
    total = torch.zeros(1, len(model.class_values) + 1, *padded.shape[2:])
    count = torch.zeros(padded.shape[2:])
    for window in dense_patch_slices(padded.shape[2:], patch, PUBLISHED_STRIDE):
        total[(..., *window)] += compute(padded[(..., *window)])
        count[window] += 1
    inside = [slice(n // 2, n // 2 + length) for n, length in zip(missing, shape, strict=True)]
    return as_mask(model, (total / count)[(0, slice(None), *inside)], volume)


def predict_few_windows(scales: tuple[float, ...], side: float | None = None) -> Way:
    """Student and teacher by turns over sizes, in windows of a side or of the model's own."""

    def way(model: TrainedModel, volume: Volume, dtype: torch.dtype) -> np.ndarray[Any, Any]:
        config = model.config.with_changes({"inference.tta_scales": scales})
        used = dataclasses.replace(model, config=config, window_side=side or model.window_side)
        return predict.predict_volume(used, volume, CPU, dtype).mask

    return way


WAYS: dict[str, Any] = {
    REFERENCE: predict_overlapping,
    "published": predict_published,
    "one size": predict_few_windows((1.0, 1.0), side=1.0),
    "patch windows": predict_few_windows((1.0, 0.9), side=1.0),
    "larger windows": predict_few_windows((1.0, 0.9), side=LARGER_SIDE),
    "whole": predict_few_windows((1.0, 0.9), side=100.0),
    "default": predict_few_windows((1.0, 0.9)),
}


def report(arguments: argparse.Namespace, names: list[str], found: dict[str, list[Any]]) -> None:
    """Print the table and the JSON line."""
    seconds = {w: np.array([[s for s, _ in run] for run in runs]) for w, runs in found.items()}
    dice = {w: np.array([[d for _, d in run] for run in runs]) for w, runs in found.items()}
    reference = REFERENCE if REFERENCE in found else next(iter(found))
    rows = list(table_rows(names, seconds, dice, reference))
    print(f"{arguments.data}, {len(arguments.seeds)} networks, {arguments.scans} scans each")
    print("| way | s a scan | times faster | " + " | ".join(f"Dice {n}" for n in names) + " |")
    print("|" + "---|" * (3 + len(names)))
    for row in rows:
        cells = [f"{row['seconds']:.2f}", f"{row['faster']:.1f}"]
        for name in names:
            mean, gain, error = row["dice"][name]
            cells.append(f"{mean:.4f} ({gain:+.4f} ± {error:.4f})")
        print(f"| {row['way']} | " + " | ".join(cells) + " |")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    ).stdout.strip()  # fmt: skip
    about = {
        "benchmark": "predict",
        "command": " ".join(["python", "benchmarks/predict.py", *sys.argv[1:]]),
        "commit": commit,
        "machine": f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}",
        "torch": version("torch"),
        "precision": arguments.precision,
        "steps": arguments.steps,
    }
    print(json.dumps({**about, "rows": rows}))


def table_rows(
    names: list[str],
    seconds: dict[str, np.ndarray[Any, Any]],
    dice: dict[str, np.ndarray[Any, Any]],
    reference: str,
) -> Iterator[dict[str, Any]]:
    """One row a way: median seconds, ratio, and mean Dice with the paired difference."""
    for way in seconds:
        row: dict[str, Any] = {
            "way": way,
            "seconds": round(float(np.median(seconds[way])), 3),
            "faster": round(float(seconds[reference].mean() / seconds[way].mean()), 2),
            "dice": {},
        }
        for number, name in enumerate(names):
            gained = (dice[way] - dice[reference])[:, :, number].ravel()
            error = float(gained.std(ddof=1) / len(gained) ** 0.5) if len(gained) > 1 else 0.0
            mean = float(dice[way][:, :, number].mean())
            row["dice"][name] = [round(v, 4) for v in (mean, float(gained.mean()), error)]
        yield row


if __name__ == "__main__":
    main()
