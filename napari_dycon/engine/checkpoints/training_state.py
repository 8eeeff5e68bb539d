"""Training state: networks, optimizer and progress, in ``state/state.safetensors``.

A single file holds everything that is needed to resume, so that a crash cannot leave inconsistent
files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from napari_dycon.core.atomic import ensure_dir
from napari_dycon.engine.checkpoints.model_file import (
    TrainedModel,
    build_tensor_infos,
    collect_network_tensors,
    copy_to_host,
    describe_model,
    strip_prefix,
)
from napari_dycon.engine.checkpoints.safetensors_io import (
    TensorInfo,
    incompatible_error,
    open_untrusted_safetensors,
    parse_description,
    write_tensors,
)
from napari_dycon.errors import EngineError

Precision = Literal["float32", "bfloat16", "float16"]
OPTIMIZER_STATE_KEYS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")  # of AdamW and SGD


class TrainingProgress(BaseModel):
    """Progress of a run, stored with its networks."""

    model_config = ConfigDict(frozen=True, strict=True)

    step: Annotated[int, Field(ge=0, le=10**9)]
    elapsed_s: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
    skipped_steps: Annotated[int, Field(ge=0, le=10**9)]
    # Precision on each device: the benchmark at start-up might choose another one on resume.
    precision: dict[str, Precision] = {}
    # Parsed by ``MemoryPlan.from_json`` and ``LossScale.from_json``, which accept anything.
    memory: Any = None
    loss_scale: Any = None


@dataclass(frozen=True)
class Snapshot:
    """Copies of the contents of a checkpoint, unaffected by further training.

    ``wait_until_copied`` waits until they are complete, since copies from CUDA are asynchronous.
    """

    networks: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    weights_metadata: dict[str, Any]
    state_metadata: dict[str, Any]
    wait_until_copied: Callable[[], None]


def take_snapshot(
    model: TrainedModel, optimizer: torch.optim.Optimizer, progress: TrainingProgress
) -> Snapshot:
    """Copy networks and optimizer state to the host."""
    networks, optimizer_tensors = collect_network_tensors(model), {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                optimizer_tensors[f"optimizer.{index}.{name}"] = value
    copies, wait_until_copied = copy_to_host(networks | optimizer_tensors)
    return Snapshot(
        {name: copies[name] for name in networks},
        {name: copies[name] for name in optimizer_tensors},
        describe_model(model, progress.step),
        {"progress": progress.model_dump(mode="json"), "config": model.config.to_dict()},
        wait_until_copied,
    )


def write_snapshot(snapshot: Snapshot, weights: Path, state: Path) -> None:
    """Write both files of a checkpoint, each atomically, the weights first."""
    snapshot.wait_until_copied()
    write_tensors(weights, snapshot.networks, snapshot.weights_metadata)
    ensure_dir(state.parent, existing_root=state.parent.parent)
    write_tensors(state, snapshot.networks | snapshot.optimizer, snapshot.state_metadata)


def read_training_progress(path: Path) -> TrainingProgress:
    """Return the ``progress`` given to ``take_snapshot``, without reading the tensors.

    Raises
    ------
    ConfigError
        The file is not a training state of this program, or its progress is invalid.
    """
    with open_untrusted_safetensors(path) as file:
        progress = _parse_progress(parse_description(file))
    if progress is None:
        raise incompatible_error(path, "the progress of its run is missing")
    return progress


def load_training_state(
    path: Path, model: TrainedModel, optimizer: torch.optim.Optimizer
) -> TrainingProgress:
    """Restore networks and optimizer in place; return the progress of the run.

    Raises
    ------
    ConfigError
        The file is not a training state of this program, damaged, or has non-finite numbers.
    EngineError
        Its network or optimizer differs from the model's.
    """
    with open_untrusted_safetensors(path) as file:
        progress = _parse_progress(parse_description(file))
        optimizer_keys = _match_tensors(file.tensors, model, optimizer)
        if progress is None or optimizer_keys is None:
            raise EngineError(
                f"The saved state of this run ({path.name}) does not fit its settings; start a new "
                "run."
            )
        tensors = file.read_tensors(file.tensors)
    for name in ("student", "teacher"):
        getattr(model, name).load_state_dict(strip_prefix(name, tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, (index, key) in optimizer_keys.items():
        state.setdefault(index, {})[key] = tensors[name]
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    for parameter, parameter_state in optimizer.state.items():
        for name, value in parameter_state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # In the parameter's memory layout, which fused updates require.
                parameter_state[name] = torch.empty_like(parameter).copy_(value)
    return progress


def _match_tensors(
    tensors: dict[str, TensorInfo], model: TrainedModel, optimizer: torch.optim.Optimizer
) -> dict[str, tuple[int, str]] | None:
    """Map optimizer tensors to parameter number and key; ``None`` if any tensor does not fit."""
    network_infos = {k: v for k, v in tensors.items() if not k.startswith("optimizer.")}
    expected_infos = build_tensor_infos("student", model.student) | build_tensor_infos(
        "teacher", model.teacher
    )
    if network_infos != expected_infos:
        return None
    shapes = [tuple(p.shape) for group in optimizer.param_groups for p in group["params"]]
    optimizer_keys = {}
    for name in set(tensors) - set(network_infos):
        optimizer_key = _parse_optimizer_key(name, tensors[name], shapes)
        if optimizer_key is None:
            return None
        optimizer_keys[name] = optimizer_key
    return optimizer_keys


def _parse_progress(description: dict[str, Any]) -> TrainingProgress | None:
    """Parse the progress of a run; ``None`` if it is missing or invalid."""
    try:
        return TrainingProgress.model_validate(description.get("progress"))
    except ValidationError:
        return None


def _parse_optimizer_key(
    name: str, info: TensorInfo, shapes: Sequence[tuple[int, ...]]
) -> tuple[int, str] | None:
    """Parse parameter number and key of an optimizer tensor; ``None`` if it is invalid."""
    match = re.fullmatch(r"optimizer\.([0-9]{1,6})\.([a-z_]{1,40})", name)
    if match is None or int(match[1]) >= len(shapes):
        return None
    has_expected_shape = info.shape == (() if match[2] == "step" else shapes[int(match[1])])
    return (
        (int(match[1]), match[2])
        if has_expected_shape and match[2] in OPTIMIZER_STATE_KEYS
        else None
    )
