"""Compare ways of predicting a scan: processor time and Dice with the same networks and scans.

``python benchmarks/predict.py --data demo|hippocampus|left-atrium --work DIR [--seeds 0 1 2]
[--steps 1000] [--scans 10] [--precision float32] [--set preprocessing.spacing=[1.25,1.25,1.25]]``

One network is trained for each seed with four labeled cases, and kept in ``DIR``. ``demo`` is the
synthetic cohort; the other datasets are read from ``$NAPARI_DYCON_DATA``. Predicted scans are not
part of the training. Every method runs on one thread:

- ``overlapping``: windows of the patch size that overlap by half, padded by replication, both
  networks at three scales each; the previous method of this program.
- ``published``: student and teacher, windows of the patch size with a stride of 18, 18 and 4 voxels
  (x, y, z), one at a time; the published evaluation on the left atrium.
- ``one size``, ``patch windows``, ``larger windows``, ``whole``: windows that overlap by a quarter
  of a patch; student and teacher each see one scale, the teacher a smaller one except in ``one
  size``. Windows are as large as patches, a quarter longer, or as large as the scan.
- ``default``: patch windows or larger windows, as chosen at the end of the run.
- ``with atlases``: the default with atlas fusion, if the preset has it.

Differences are paired by network and scan and given with their standard error. Prints a table and
one line of JSON, which ``benchmarks/results/predict-*.json`` hold.
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
PredictionMethod = Callable[[TrainedModel, Volume, torch.dtype], np.ndarray[Any, Any]]


def main() -> None:
    """Train missing networks, predict and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=("demo", "hippocampus", "left-atrium"), default="demo")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--scans", type=int, default=10)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--prediction-methods", nargs="+", default=[*PREDICTION_METHODS, "with atlases"]
    )
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dtype = getattr(torch, arguments.precision)
    found: dict[str, list[Any]] = {name: [] for name in arguments.prediction_methods}
    names: list[str] = []
    for seed in arguments.seeds:
        project, scans = prepare(arguments, seed)
        run = train(arguments, project, seed)
        names = [c.name for c in project.classes]
        model = load_model(run.weights_path)
        for prediction_method in arguments.prediction_methods:
            used = model
            if prediction_method == "with atlases":
                used = attach_atlases(project, run, model, CPU, dtype, lambda _: None)
            found[prediction_method].append(
                [measure(used, prediction_method, *scan, dtype) for scan in scans]
            )
            print(f"seed {seed}, {prediction_method}: done", file=sys.stderr, flush=True)
    report(arguments, names, found)


def prepare(arguments: argparse.Namespace, seed: int) -> tuple[Project, list[tuple[Path, Path]]]:
    """Return the project of a seed, and held-out scans with their labels."""
    folder = arguments.work / f"{arguments.data}-{seed}"
    scans = folder / "scans"
    if not scans.exists():
        shutil.rmtree(folder, ignore_errors=True)
        images, labels, names, classes = find_source(arguments, seed)
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


def find_source(
    arguments: argparse.Namespace, seed: int
) -> tuple[Path, Path, list[str], list[str]]:
    """Return the folders of scans and labels, file names in order of use, and class names."""
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
    """Return the finished run of a seed; train it in a new process if it is missing."""
    finished = [run for run in project.runs.list() if run.metrics_path.exists()]
    if not finished:
        command = [sys.executable, "-m", "napari_dycon", "train", project.path, "--json"]
        command += ["--steps", arguments.steps, "--seed", seed, "--device", "cpu"]
        command += [f"--set={pair}" for pair in arguments.set]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        finished = [run for run in project.runs.list() if run.metrics_path.exists()]
    return finished[-1]


def measure(
    model: TrainedModel, prediction_method: str, image: Path, truth: Path, dtype: torch.dtype
) -> tuple[float, list[float]]:
    """Return the processor seconds of one scan, and Dice of each structure."""
    volume = read_scan([image], image.name)
    label = read_label(truth, reference=volume).array
    begin = time.process_time()
    if prediction_method == "with atlases":
        mask = predict.predict_volume(model, volume, CPU, dtype).mask
    else:
        mask = PREDICTION_METHODS[prediction_method](
            dataclasses.replace(model, atlases=()), volume, dtype
        )
    seconds = time.process_time() - begin
    dice = []
    for value in model.class_values:
        a, b = mask == value, label == value
        dice.append(2 * float((a & b).sum()) / max(float(a.sum() + b.sum()), 1.0))
    return seconds, dice


def resample_to_mask(
    model: TrainedModel, probabilities: Tensor, volume: Volume
) -> np.ndarray[Any, Any]:
    """Return label values ``(D, H, W)`` of probabilities on any grid over the scan."""
    if tuple(probabilities.shape[1:]) != volume.shape:
        probabilities = F.interpolate(
            probabilities[None], size=volume.shape, mode="trilinear", align_corners=False
        )[0]
    values = np.array([0, *model.class_values], np.uint8)
    return np.asarray(values[probabilities.argmax(dim=0).numpy()])


def average_networks(model: TrainedModel, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return a function that computes the mean softmax output of student and teacher."""

    def compute(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            logits = [network(x).logits.float() for network in (model.student, model.teacher)]
        return (F.softmax(logits[0], dim=1) + F.softmax(logits[1], dim=1)) / 2

    return compute


@torch.inference_mode()
def predict_overlapping(
    model: TrainedModel, volume: Volume, dtype: torch.dtype
) -> np.ndarray[Any, Any]:
    """Predict with windows that overlap by half, at three scales, with both networks."""
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
            predictor=average_networks(model, dtype),
            overlap=0.5,
            mode="gaussian",
            padding_mode="replicate",
        )
        total = total + F.interpolate(
            stitched, size=volume.shape, mode="trilinear", align_corners=False
        )
    return resample_to_mask(model, total[0], volume)


@torch.inference_mode()
def predict_published(
    model: TrainedModel, volume: Volume, dtype: torch.dtype
) -> np.ndarray[Any, Any]:
    """Average dense windows, one at a time; smaller scans are padded by replication."""
    image = torch.from_numpy(prepare_image(volume, model.config))
    patch = model.config.batch.patch_size
    assert patch is not None
    shape = image.shape[1:]
    missing = [max(side - length, 0) for length, side in zip(shape, patch, strict=True)]
    padding = [n for length in reversed(missing) for n in (length // 2, length - length // 2)]
    padded = F.pad(image[None], padding, mode="replicate")
    compute = average_networks(model, dtype)
    total = torch.zeros(1, len(model.class_values) + 1, *padded.shape[2:])
    count = torch.zeros(padded.shape[2:])
    for window in dense_patch_slices(padded.shape[2:], patch, PUBLISHED_STRIDE):
        total[(..., *window)] += compute(padded[(..., *window)])
        count[window] += 1
    crop: list[Any] = [
        slice(n // 2, n // 2 + length) for n, length in zip(missing, shape, strict=True)
    ]
    return resample_to_mask(model, (total / count)[(0, slice(None), *crop)], volume)


def predict_few_windows(scales: tuple[float, ...], side: float | None = None) -> PredictionMethod:
    """Return a method with student and teacher at alternating scales, and a window side."""

    def predict_method(
        model: TrainedModel, volume: Volume, dtype: torch.dtype
    ) -> np.ndarray[Any, Any]:
        config = model.config.with_changes({"inference.tta_scales": scales})
        used = dataclasses.replace(model, config=config, window_side=side or model.window_side)
        return predict.predict_volume(used, volume, CPU, dtype).mask

    return predict_method


PREDICTION_METHODS: dict[str, Any] = {
    REFERENCE: predict_overlapping,
    "published": predict_published,
    "one size": predict_few_windows((1.0, 1.0), side=1.0),
    "patch windows": predict_few_windows((1.0, 0.9), side=1.0),
    "larger windows": predict_few_windows((1.0, 0.9), side=LARGER_SIDE),
    "whole": predict_few_windows((1.0, 0.9), side=100.0),
    "default": predict_few_windows((1.0, 0.9)),
}


def report(arguments: argparse.Namespace, names: list[str], found: dict[str, list[Any]]) -> None:
    """Print the table and the line of JSON."""
    seconds = {w: np.array([[s for s, _ in run] for run in runs]) for w, runs in found.items()}
    dice = {w: np.array([[d for _, d in run] for run in runs]) for w, runs in found.items()}
    reference = REFERENCE if REFERENCE in found else next(iter(found))
    rows = list(make_table_rows(names, seconds, dice, reference))
    print(f"{arguments.data}, {len(arguments.seeds)} networks, {arguments.scans} scans each")
    print("| method | s per scan | speedup | " + " | ".join(f"Dice {n}" for n in names) + " |")
    print("|" + "---|" * (3 + len(names)))
    for row in rows:
        cells = [f"{row['seconds']:.2f}", f"{row['speedup']:.1f}"]
        for name in names:
            mean, gain, error = row["dice"][name]
            cells.append(f"{mean:.4f} ({gain:+.4f} ± {error:.4f})")
        print(f"| {row['method']} | " + " | ".join(cells) + " |")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    ).stdout.strip()  # fmt: skip
    metadata = {
        "benchmark": "predict",
        "command": " ".join(["python", "benchmarks/predict.py", *sys.argv[1:]]),
        "commit": commit,
        "machine": f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}",
        "torch": version("torch"),
        "precision": arguments.precision,
        "steps": arguments.steps,
    }
    print(json.dumps({**metadata, "rows": rows}))


def make_table_rows(
    names: list[str],
    seconds: dict[str, np.ndarray[Any, Any]],
    dice: dict[str, np.ndarray[Any, Any]],
    reference: str,
) -> Iterator[dict[str, Any]]:
    """Yield one row for each method: median seconds, speedup, mean Dice and paired gain."""
    for prediction_method in seconds:
        row: dict[str, Any] = {
            "method": prediction_method,
            "seconds": round(float(np.median(seconds[prediction_method])), 3),
            "speedup": round(
                float(seconds[reference].mean() / seconds[prediction_method].mean()), 2
            ),
            "dice": {},
        }
        for number, name in enumerate(names):
            gains = (dice[prediction_method] - dice[reference])[:, :, number].ravel()
            error = float(gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else 0.0
            mean = float(dice[prediction_method][:, :, number].mean())
            row["dice"][name] = [round(v, 4) for v in (mean, float(gains.mean()), error)]
        yield row


if __name__ == "__main__":
    main()
