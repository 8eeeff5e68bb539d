"""Prediction of the GPU benchmark: whole scans, label fusion, registration, published windows."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from gpu_lab import CPU, Lab, Measures, Task, build_model, build_stepper
from gpu_scans import SPACING_MM, make_scan
from torch import Tensor

from napari_dycon.engine.atlas.label_fusion import label_probabilities
from napari_dycon.engine.atlas.registered_cases import resize_to_grid, warp_case
from napari_dycon.engine.atlas.registration import register, registration_shape
from napari_dycon.engine.atlas.segmentation import segment_with_atlases
from napari_dycon.engine.checkpoints.checkpoint import TrainedModel
from napari_dycon.engine.data.loader import BatchLoader
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.data.preprocessing import prepare_image, read_image_array, read_label_array
from napari_dycon.engine.device import choose_precision
from napari_dycon.engine.inference.predict import predict_probabilities, predict_volume
from napari_dycon.engine.methods import build_method
from napari_dycon.io.volume import Source, Volume

STRIDE = (4, 18, 18)  # of the published evaluation of the left atrium, (D, H, W)
MEASURED_WINDOWS = 30
LIMIT_S = 20.0  # above it a measurement is extrapolated from a part
Array = npt.NDArray[Any]


def prediction(lab: Lab) -> Iterator[Task]:
    """Times of predictions, and how far those of the GPU are from those of the CPU."""
    data = lab.data(lab.config("dycon", **{"atlas.weight": 0.4}))
    model = _train_a_little(lab, data)
    scans = {"small": make_volume(77, lab.shape), "large": make_volume(78, lab.large)}
    for name, volume in scans.items():
        yield f"default, {name}", partial(_default, lab, model, volume)
    for name, volume in scans.items():
        yield f"published windows, {name}", partial(_published, lab, model, volume)
    yield "networks against the CPU", partial(_against_cpu, lab, model, scans["small"])
    yield "registration", partial(_registration, lab, model, data, scans["small"])
    yield "label fusion", partial(_fusion, lab, model, data, scans["small"])
    for name, volume in scans.items():
        yield f"with atlas fusion, {name}", partial(_with_atlas, lab, model, data, volume)


def make_volume(seed: int, shape: tuple[int, int, int]) -> Volume:
    """Make a scan on a grid of its own."""
    half = shape[0] // 2, shape[1] // 2, shape[2] // 2
    image, _ = make_scan(seed, half)  # in full, a large one would take longer than all predictions
    for axis in range(3):
        image = image.repeat(2, axis)
    affine = np.zeros((4, 4))
    affine[2, 0] = SPACING_MM
    affine[1, 1] = affine[0, 2] = -SPACING_MM
    affine[3, 3] = 1.0
    return Volume(image, affine, Source(None, shape, affine))


def _train_a_little(lab: Lab, data: TrainingData) -> TrainedModel:
    """Networks that are not the same everywhere."""
    model = build_model(data, lab.device)
    stepper = build_stepper(model, lab.device, torch.float32)
    batches = BatchLoader(data, lab.device, read_ahead=0)
    method = build_method(data.config.with_changes(method="supervised"))
    for step in range(2 if lab.quick else 30):
        stepper.step(step, data.config, method, batches.load_single(step, []), 0.0, 0.01)
    batches.close()
    return model


def _default(lab: Lab, model: TrainedModel, volume: Volume) -> Measures:
    """Today's prediction without labeled scans, the first and the second time."""
    measures: Measures = {"shape": list(volume.shape)}
    dtype = choose_precision("auto", lab.device) if lab.cuda else torch.float32
    image = prepare_image(volume, model.config)
    predict = partial(predict_volume, model, volume, lab.device, dtype, prepared_image=image)
    for name in ("first s", "second s"):
        measures[name] = lab.milliseconds(predict) / 1e3
    quick = partial(predict, fast=True)
    measures["one view s"] = lab.milliseconds(quick) / 1e3
    measures["preparing s"] = lab.milliseconds(lambda: prepare_image(volume, model.config)) / 1e3
    return measures


def _published(lab: Lab, model: TrainedModel, volume: Volume) -> Measures:
    """The published evaluation: one network, one window at a time, added up on the host."""
    patch = model.config.batch.patch_size
    assert patch is not None
    image = prepare_image(volume, model.config)
    missing = [max(p - n, 0) for p, n in zip(patch, image.shape[1:], strict=True)]
    image = np.pad(image, [(0, 0), *((0, n) for n in missing)])
    starts = [
        [min(s * i, n - p) for i in range(math.ceil((n - p) / s) + 1)]
        for n, p, s in zip(image.shape[1:], patch, STRIDE, strict=True)
    ]
    places = list(itertools.product(*starts))
    scores = np.zeros((len(model.class_values) + 1, *image.shape[1:]), np.float32)
    network = model.student.eval()

    def predict(place: tuple[int, ...]) -> None:
        box = (slice(None), *(slice(s, s + p) for s, p in zip(place, patch, strict=True)))
        with torch.inference_mode():
            window = torch.from_numpy(np.ascontiguousarray(image[box]))[None].to(lab.device)
            scores[box] += F.softmax(network(window).logits, dim=1)[0].cpu().numpy()

    predict(places[0])
    begin = time.perf_counter()
    count = 0
    limit = min(LIMIT_S, lab.left() / 4) if not lab.quick else 0.5
    for place in places:
        predict(place)
        count += 1
        if count >= MEASURED_WINDOWS and time.perf_counter() - begin > limit:
            break
    seconds = (time.perf_counter() - begin) / count * len(places)
    network.train()
    note = "" if count == len(places) else f"extrapolated from {count} windows"
    return {"windows": len(places), "s": seconds, "note": note}


def _against_cpu(lab: Lab, model: TrainedModel, volume: Volume) -> Measures:
    """Softmax outputs of the device in each precision, against the CPU in float32."""
    image = torch.from_numpy(prepare_image(volume, model.config))
    on_cpu = _copy_to(model, CPU)
    begin = time.perf_counter()
    exact = predict_probabilities(on_cpu.student, on_cpu, image, CPU, torch.float32)
    measures: Measures = {"cpu s": time.perf_counter() - begin}
    passed = True
    for dtype in (torch.float32, *((torch.bfloat16, torch.float16) if lab.cuda else ())):
        how = model.student, model, image, lab.device, dtype
        probabilities = partial(predict_probabilities, *how)
        found, seconds = _timed(lab, lab.device, probabilities)
        apart = (found.cpu() - exact).abs()
        same = float((found.cpu().argmax(dim=0) == exact.argmax(dim=0)).float().mean())
        passed &= same > 0.99
        measures[str(dtype).removeprefix("torch.")] = {
            "s": seconds,
            "most": float(apart.max()),
            "mean": float(apart.mean()),
            "same class": same,
        }
    return {**measures, "ok": bool(passed)}


def _copy_to(model: TrainedModel, device: torch.device) -> TrainedModel:
    networks = {
        name: copy.deepcopy(getattr(model, name)).to(device) for name in ("student", "teacher")
    }
    return dataclasses.replace(model, **networks)


def _timed(lab: Lab, device: torch.device, compute: Callable[[], Any]) -> tuple[Any, float]:
    """What a computation gives, and its seconds; on a GPU those of the second time."""
    if device.type == "cuda":
        compute()
    found: list[Any] = []
    milliseconds = lab.milliseconds(lambda: found.append(compute()))
    return found[0], milliseconds / 1e3


def _fields(data: TrainingData, image: Array, device: torch.device) -> Tensor:
    """Displacements from every labeled scan to another one."""
    canvas = registration_shape([image.shape[1:]])
    fixed = resize_to_grid(image, canvas, device)[None]
    moving = torch.stack(
        [resize_to_grid(read_image_array(case.image), canvas, device) for case in data.labeled]
    )
    return register(moving, fixed.expand(len(moving), -1, -1, -1, -1).contiguous())


def _registration(lab: Lab, model: TrainedModel, data: TrainingData, volume: Volume) -> Measures:
    """Registration of the labeled scans, and one scan deformed, on both devices."""
    image = prepare_image(volume, model.config)
    shape = image.shape[1:]
    exact, cpu_s = _timed(lab, CPU, lambda: _fields(data, image, CPU))
    found, seconds = _timed(lab, lab.device, lambda: _fields(data, image, lab.device))
    (_, label), cpu_deform_s = _timed(
        lab, CPU, lambda: warp_case(data.labeled[0], exact[:1], shape)
    )
    (_, other), deform_s = _timed(
        lab, lab.device, lambda: warp_case(data.labeled[0], exact[:1].to(lab.device), shape)
    )
    same = float((label == other.cpu()).float().mean())
    half_canvas = (found.cpu() - exact).abs()
    return {
        "ok": bool(torch.isfinite(found).all()) and same > 0.999,
        "scans": len(data.labeled),
        "cpu s": cpu_s,
        "s": seconds,
        "mean difference": float(half_canvas.mean()),  # of half a scan's side
        "deform cpu s": cpu_deform_s,
        "deform s": deform_s,
        "same label": same,
    }


def _fusion(lab: Lab, model: TrainedModel, data: TrainingData, volume: Volume) -> Measures:
    """Labels fused in a scan from the same deformed scans, on both devices."""
    image = prepare_image(volume, model.config)
    fields = _fields(data, image, CPU)
    deformed = [
        warp_case(case, fields[n : n + 1], image.shape[1:]) for n, case in enumerate(data.labeled)
    ]
    images, labels = (list(part) for part in zip(*deformed, strict=True))
    classes = len(model.class_values) + 1
    exact, cpu_s = _timed(lab, CPU, lambda: label_probabilities(image, images, labels, classes))
    found, seconds = _timed(
        lab,
        lab.device,
        lambda: label_probabilities(image, images, labels, classes, device=lab.device),
    )
    apart = (found.cpu() - exact).abs()
    return {
        "ok": float(apart.mean()) < 1e-4,
        "cpu s": cpu_s,
        "s": seconds,
        "most": float(apart.max()),
        "mean": float(apart.mean()),
    }


def _with_atlas(lab: Lab, model: TrainedModel, data: TrainingData, volume: Volume) -> Measures:
    """Today's default with labeled scans: networks, registration, fusion and maps."""
    voting = dataclasses.replace(model, atlases=(tuple(data.labeled),))
    image = prepare_image(volume, model.config)
    dtype = choose_precision("auto", lab.device) if lab.cuda else torch.float32
    votes, vote_s = _timed(
        lab,
        lab.device,
        lambda: segment_with_atlases(
            image, voting.atlases, len(model.class_values) + 1, lab.device
        ),
    )
    whole = partial(predict_volume, voting, volume, lab.device, dtype, prepared_image=image)
    result, seconds = _timed(lab, lab.device, whole)
    labels = [int(np.count_nonzero(read_label_array(case.label) == 1)) for case in data.labeled]
    return {
        "fused": votes is not None,
        "fusion s": vote_s,
        "whole s": seconds,
        "foreground": int(np.count_nonzero(result.mask)),
        "foreground of labels": labels,
    }
