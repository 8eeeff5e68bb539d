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
from gpu_context import CPU, Measures, SectionContext, Task, build_model, build_stepper
from gpu_scans import SPACING_MM, make_scan
from torch import Tensor

from napari_dycon.engine.atlas.label_fusion import label_probabilities
from napari_dycon.engine.atlas.registered_cases import resize_to_grid, warp_case
from napari_dycon.engine.atlas.registration import register, registration_shape
from napari_dycon.engine.atlas.segmentation import segment_with_atlases
from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.data.loader import BatchLoader
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.data.preprocessing import prepare_image, read_image_array, read_label_array
from napari_dycon.engine.device import choose_precision
from napari_dycon.engine.inference.predict import predict_probabilities, predict_volume
from napari_dycon.engine.methods import build_method
from napari_dycon.io.volume import Source, Volume

STRIDE = (4, 18, 18)  # of the published evaluation of the left atrium, (D, H, W)
MEASURED_WINDOWS = 30
MAX_MEASURED_S = 20.0  # longer measurements are extrapolated from a part
Array = npt.NDArray[Any]


def yield_prediction_tasks(context: SectionContext) -> Iterator[Task]:
    """Yield times of predictions, and differences between GPU and CPU."""
    data = context.data(context.config("dycon", **{"atlas.weight": 0.4}))
    model = _train_briefly(context, data)
    scans = {"small": make_volume(77, context.shape), "large": make_volume(78, context.large)}
    for name, volume in scans.items():
        yield f"default, {name}", partial(_measure_default, context, model, volume)
    for name, volume in scans.items():
        yield f"published windows, {name}", partial(_measure_published, context, model, volume)
    yield "networks against the CPU", partial(_compare_with_cpu, context, model, scans["small"])
    yield "registration", partial(_measure_registration, context, model, data, scans["small"])
    yield "label fusion", partial(_measure_fusion, context, model, data, scans["small"])
    for name, volume in scans.items():
        yield (
            f"with atlas fusion, {name}",
            partial(_measure_atlas_fusion, context, model, data, volume),
        )


def make_volume(seed: int, shape: tuple[int, int, int]) -> Volume:
    """Synthesize a scan as a volume."""
    half = shape[0] // 2, shape[1] // 2, shape[2] // 2
    image, _ = make_scan(
        seed, half
    )  # a large scan at full size would take longer than all predictions
    for axis in range(3):
        image = image.repeat(2, axis)
    affine = np.zeros((4, 4))
    affine[2, 0] = SPACING_MM
    affine[1, 1] = affine[0, 2] = -SPACING_MM
    affine[3, 3] = 1.0
    return Volume(image, affine, Source(None, shape, affine))


def _train_briefly(context: SectionContext, data: TrainingData) -> TrainedModel:
    """Train networks for a few steps, so that predictions are not constant."""
    model = build_model(data, context.device)
    stepper = build_stepper(model, context.device, torch.float32)
    batches = BatchLoader(data, context.device, read_ahead=0)
    method = build_method(data.config.with_changes(method="supervised"))
    for step in range(2 if context.quick else 30):
        stepper.step(step, data.config, method, batches.load_single(step, []), 0.0, 0.01)
    batches.close()
    return model


def _measure_default(context: SectionContext, model: TrainedModel, volume: Volume) -> Measures:
    """Measure the default prediction without atlases, the first and the second time."""
    measures: Measures = {"shape": list(volume.shape)}
    dtype = choose_precision("auto", context.device) if context.cuda else torch.float32
    image = prepare_image(volume, model.config)
    predict = partial(predict_volume, model, volume, context.device, dtype, prepared_image=image)
    for name in ("first s", "second s"):
        measures[name] = context.milliseconds(predict) / 1e3
    quick = partial(predict, fast=True)
    measures["one view s"] = context.milliseconds(quick) / 1e3
    measures["preparing s"] = (
        context.milliseconds(lambda: prepare_image(volume, model.config)) / 1e3
    )
    return measures


def _measure_published(context: SectionContext, model: TrainedModel, volume: Volume) -> Measures:
    """Measure the published evaluation: one network, one window at a time, summed on the host."""
    patch = model.config.batch.patch_size
    assert patch is not None
    image = prepare_image(volume, model.config)
    missing = [max(p - n, 0) for p, n in zip(patch, image.shape[1:], strict=True)]
    image = np.pad(image, [(0, 0), *((0, n) for n in missing)])
    starts = [
        [min(s * i, n - p) for i in range(math.ceil((n - p) / s) + 1)]
        for n, p, s in zip(image.shape[1:], patch, STRIDE, strict=True)
    ]
    positions = list(itertools.product(*starts))
    scores = np.zeros((len(model.class_values) + 1, *image.shape[1:]), np.float32)
    network = model.student.eval()

    def predict(position: tuple[int, ...]) -> None:
        box = (slice(None), *(slice(s, s + p) for s, p in zip(position, patch, strict=True)))
        with torch.inference_mode():
            window = torch.from_numpy(np.ascontiguousarray(image[box]))[None].to(context.device)
            scores[box] += F.softmax(network(window).logits, dim=1)[0].cpu().numpy()

    predict(positions[0])
    begin = time.perf_counter()
    count = 0
    limit = min(MAX_MEASURED_S, context.remaining_s() / 4) if not context.quick else 0.5
    for position in positions:
        predict(position)
        count += 1
        if count >= MEASURED_WINDOWS and time.perf_counter() - begin > limit:
            break
    seconds = (time.perf_counter() - begin) / count * len(positions)
    network.train()
    note = "" if count == len(positions) else f"extrapolated from {count} windows"
    return {"windows": len(positions), "s": seconds, "note": note}


def _compare_with_cpu(context: SectionContext, model: TrainedModel, volume: Volume) -> Measures:
    """Compare softmax outputs of the device in each precision with the CPU in float32."""
    image = torch.from_numpy(prepare_image(volume, model.config))
    on_cpu = _copy_to(model, CPU)
    begin = time.perf_counter()
    exact = predict_probabilities(on_cpu.student, on_cpu, image, CPU, torch.float32)
    measures: Measures = {"cpu s": time.perf_counter() - begin}
    passed = True
    for dtype in (torch.float32, *((torch.bfloat16, torch.float16) if context.cuda else ())):
        arguments = model.student, model, image, context.device, dtype
        probabilities = partial(predict_probabilities, *arguments)
        result, seconds = _timed(context, context.device, probabilities)
        difference = (result.cpu() - exact).abs()
        same = float((result.cpu().argmax(dim=0) == exact.argmax(dim=0)).float().mean())
        passed &= same > 0.99
        measures[str(dtype).removeprefix("torch.")] = {
            "s": seconds,
            "max": float(difference.max()),
            "mean": float(difference.mean()),
            "same class": same,
        }
    return {**measures, "ok": bool(passed)}


def _copy_to(model: TrainedModel, device: torch.device) -> TrainedModel:
    networks = {
        name: copy.deepcopy(getattr(model, name)).to(device) for name in ("student", "teacher")
    }
    return dataclasses.replace(model, **networks)


def _timed(
    context: SectionContext, device: torch.device, compute: Callable[[], Any]
) -> tuple[Any, float]:
    """Return the result of a computation and its seconds, on a GPU of the second call."""
    if device.type == "cuda":
        compute()
    found: list[Any] = []
    milliseconds = context.milliseconds(lambda: found.append(compute()))
    return found[0], milliseconds / 1e3


def _fields(data: TrainingData, image: Array, device: torch.device) -> Tensor:
    """Displacements from every labeled scan to another one."""
    canvas = registration_shape([image.shape[1:]])
    fixed = resize_to_grid(image, canvas, device)[None]
    moving = torch.stack(
        [resize_to_grid(read_image_array(case.image), canvas, device) for case in data.labeled]
    )
    return register(moving, fixed.expand(len(moving), -1, -1, -1, -1).contiguous())


def _measure_registration(
    context: SectionContext, model: TrainedModel, data: TrainingData, volume: Volume
) -> Measures:
    """Compare registration of the labeled scans, and one warped scan, on both devices."""
    image = prepare_image(volume, model.config)
    shape = image.shape[1:]
    exact, cpu_s = _timed(context, CPU, lambda: _fields(data, image, CPU))
    result, seconds = _timed(context, context.device, lambda: _fields(data, image, context.device))
    (_, label), cpu_warp_s = _timed(
        context, CPU, lambda: warp_case(data.labeled[0], exact[:1], shape)
    )
    (_, other), warp_s = _timed(
        context,
        context.device,
        lambda: warp_case(data.labeled[0], exact[:1].to(context.device), shape),
    )
    same = float((label == other.cpu()).float().mean())
    difference = (result.cpu() - exact).abs()
    return {
        "ok": bool(torch.isfinite(result).all()) and same > 0.999,
        "scans": len(data.labeled),
        "cpu s": cpu_s,
        "s": seconds,
        "mean difference": float(difference.mean()),  # relative to half the side of a scan
        "warp cpu s": cpu_warp_s,
        "warp s": warp_s,
        "same label": same,
    }


def _measure_fusion(
    context: SectionContext, model: TrainedModel, data: TrainingData, volume: Volume
) -> Measures:
    """Compare label fusion from the same warped scans on both devices."""
    image = prepare_image(volume, model.config)
    fields = _fields(data, image, CPU)
    warped = [
        warp_case(case, fields[n : n + 1], image.shape[1:]) for n, case in enumerate(data.labeled)
    ]
    images, labels = (list(part) for part in zip(*warped, strict=True))
    classes = len(model.class_values) + 1
    exact, cpu_s = _timed(context, CPU, lambda: label_probabilities(image, images, labels, classes))
    result, seconds = _timed(
        context,
        context.device,
        lambda: label_probabilities(image, images, labels, classes, device=context.device),
    )
    difference = (result.cpu() - exact).abs()
    return {
        "ok": float(difference.mean()) < 1e-4,
        "cpu s": cpu_s,
        "s": seconds,
        "max": float(difference.max()),
        "mean": float(difference.mean()),
    }


def _measure_atlas_fusion(
    context: SectionContext, model: TrainedModel, data: TrainingData, volume: Volume
) -> Measures:
    """Measure the default prediction with atlases: networks, registration, fusion and maps."""
    with_atlases = dataclasses.replace(model, atlases=(tuple(data.labeled),))
    image = prepare_image(volume, model.config)
    dtype = choose_precision("auto", context.device) if context.cuda else torch.float32
    fused, fusion_s = _timed(
        context,
        context.device,
        lambda: segment_with_atlases(
            image, with_atlases.atlases, len(model.class_values) + 1, context.device
        ),
    )
    predict = partial(
        predict_volume, with_atlases, volume, context.device, dtype, prepared_image=image
    )
    result, seconds = _timed(context, context.device, predict)
    labels = [int(np.count_nonzero(read_label_array(case.label) == 1)) for case in data.labeled]
    return {
        "fused": fused is not None,
        "fusion s": fusion_s,
        "total s": seconds,
        "foreground": int(np.count_nonzero(result.mask)),
        "foreground of labels": labels,
    }
