"""Training state: networks, optimizer and progress, in ``state/state.safetensors``.

The file holds everything that resuming needs, so that a crash between two files cannot leave them
inconsistent.
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
    """How far a run has come, kept with its networks."""

    model_config = ConfigDict(frozen=True, strict=True)

    step: Annotated[int, Field(ge=0, le=10**9)]
    elapsed_s: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
    skipped_steps: Annotated[int, Field(ge=0, le=10**9)]
    # Precision on each device: a timed trial may choose another one the next time.
    precision: dict[str, Precision] = {}
    # Parsed by ``MemoryPlan.from_json`` and ``LossScale.from_json``, which accept anything.
    memory: Any = None
    loss_scale: Any = None


@dataclass(frozen=True)
class Snapshot:
    """Copies of what a checkpoint holds, which training does not change any more.

    ``wait_until_copied`` waits until they are complete: from CUDA they are made beside the
    computation.
    """

    networks: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    weights_metadata: dict[str, Any]
    state_metadata: dict[str, Any]
    wait_until_copied: Callable[[], None]


def take_snapshot(
    model: TrainedModel, optimizer: torch.optim.Optimizer, progress: TrainingProgress
) -> Snapshot:
    """Copy networks and optimizer to the host."""
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
        The file is not a training state of this program, or does not hold a valid progress.
    """
    with open_untrusted_safetensors(path) as file:
        progress = _parse_progress(parse_description(file))
    if progress is None:
        raise incompatible_error(path, "it does not say how far its run came")
    return progress


def load_training_state(
    path: Path, model: TrainedModel, optimizer: torch.optim.Optimizer
) -> TrainingProgress:
    """Restore networks and optimizer in place; return the progress of the run.

    Raises
    ------
    ConfigError
        The file is no state of this program, damaged, or holds numbers that are not finite.
    EngineError
        It is of another network or optimizer than the model's.
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
                # In the parameter's own layout, which fused updates take for granted.
                parameter_state[name] = torch.empty_like(parameter).copy_(value)
    return progress


def _match_tensors(
    tensors: dict[str, TensorInfo], model: TrainedModel, optimizer: torch.optim.Optimizer
) -> dict[str, tuple[int, str]] | None:
    """Parameter number and key of each optimizer tensor; ``None`` where any tensor is unfit."""
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
    """Progress of a run; ``None`` where it is missing or invalid."""
    try:
        return TrainingProgress.model_validate(description.get("progress"))
    except ValidationError:
        return None


def _parse_optimizer_key(
    name: str, info: TensorInfo, shapes: Sequence[tuple[int, ...]]
) -> tuple[int, str] | None:
    """Parameter number and key of an optimizer tensor; ``None`` where it is invalid."""
    match = re.fullmatch(r"optimizer\.([0-9]{1,6})\.([a-z_]{1,40})", name)
    if match is None or int(match[1]) >= len(shapes):
        return None
    has_expected_shape = info.shape == (() if match[2] == "step" else shapes[int(match[1])])
    return (
        (int(match[1]), match[2])
        if has_expected_shape and match[2] in OPTIMIZER_STATE_KEYS
        else None
    )
