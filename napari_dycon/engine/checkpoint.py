"""Weights and training state as safetensors with JSON beside them; nothing is ever unpickled.

``weights.safetensors`` holds student and teacher and, in its metadata, all that prediction needs.
``state/state.safetensors`` holds everything that resuming needs in one file, so that a crash
between two files cannot tear them apart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.network import SegmentationNetwork, build_network
from napari_dycon.errors import ConfigError, EngineError
from napari_dycon.project.atomic import make_folder, replacing

FORMAT = "napari-dycon"
VERSION = 1


@dataclass(frozen=True)
class Model:
    """Networks ready to predict, with what their outputs mean."""

    student: SegmentationNetwork
    teacher: SegmentationNetwork
    config: TrainConfig
    class_values: tuple[int, ...]  # label value of output 1, 2, ...; output 0 is background
    channels: int
    temperature: float = 1.0  # logits are divided by it; see calibration.py


def _prefixed(name: str, module: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for key, value in module.state_dict().items()
    }


def _write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    header = {"format": FORMAT, "version": str(VERSION), "about": json.dumps(about)}
    # Student and teacher never share memory, but a module may tie tensors; copies are small.
    with replacing(path) as temporary:
        try:
            save_file({k: v.clone() for k, v in tensors.items()}, temporary, metadata=header)
        except SafetensorError as error:  # so it says that a disk is full
            raise OSError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Why safetensors could not write, in the system's words alone."""
    return str(error).rpartition("I/O error: ")[2].partition(" (os error")[0]


def _read(path: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ConfigError(
                    f"{path.name} holds no weights of this program; expected a file that a "
                    "training run wrote."
                )
            if int(header.get("version", "0")) > VERSION:
                raise ConfigError(f"{path.name} was written by a newer version; update to open it.")
            about = json.loads(header["about"])
            names = file.keys() if tensors else ()
            return {key: file.get_tensor(key) for key in names}, about
    except FileNotFoundError:
        raise ConfigError(f"There are no weights at {path}; train first.") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path.name} cannot be read as weights ({error}); it may be damaged. "
            "Choose another run or train again."
        ) from None


def save_weights(path: Path, model: Model, step: int) -> None:
    """Write student and teacher with the configuration and the classes."""
    about = {
        "config": model.config.to_dict(),
        "class_values": list(model.class_values),
        "channels": model.channels,
        "temperature": model.temperature,
        "step": step,
    }
    tensors = _prefixed("student", model.student) | _prefixed("teacher", model.teacher)
    _write(path, tensors, about)


def load_model(path: Path, device: torch.device | None = None) -> Model:
    """Read a ``weights.safetensors`` and build its networks, in evaluation mode."""
    tensors, about = _read(path)
    try:
        config = TrainConfig.from_dict(about["config"])
        values = tuple(int(v) for v in about["class_values"])
        channels = int(about["channels"])
        temperature = float(about["temperature"])
        networks = {}
        for name in ("student", "teacher"):
            network = build_network(config, channels, len(values) + 1)
            prefix = f"{name}."
            network.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
            networks[name] = network.to(device or torch.device("cpu")).eval()
    except (KeyError, TypeError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"The weights at {path} do not fit this version: {line}") from None
    student, teacher = networks["student"], networks["teacher"]
    return Model(student, teacher, config, values, channels, temperature)


def save_state(
    path: Path, model: Model, optimizer: torch.optim.Optimizer, loop: dict[str, Any]
) -> None:
    """Write all that an exact resume needs; ``loop`` is JSON (step, elapsed, ...)."""
    tensors = _prefixed("student", model.student) | _prefixed("teacher", model.teacher)
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value.detach().cpu().contiguous()
    make_folder(path.parent, inside=path.parent.parent)
    _write(path, tensors, {"loop": loop, "config": model.config.to_dict()})


def read_loop(path: Path) -> dict[str, Any]:
    """Return what ``save_state`` was given as ``loop``, without reading the tensors."""
    return dict(_read(path, tensors=False)[1]["loop"])


def load_state(path: Path, model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore networks and optimiser in place; return what ``save_state`` was given as ``loop``."""
    tensors, about = _read(path)
    try:
        for name in ("student", "teacher"):
            prefix = f"{name}."
            getattr(model, name).load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, slot = key.split(".", 2)
                state.setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
    except (KeyError, RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise EngineError(
            f"The saved state of this run does not fit its settings ({line}); start a new run."
        ) from None
    return dict(about["loop"])


def copy_matching(model: Model, source: Path) -> int:
    """Start from the weights of another run; returns how many tensors fitted.

    Tensors of another shape (other classes, another network) keep their fresh values.
    """
    tensors, _ = _read(source)
    copied = 0
    for name in ("student", "teacher"):
        own = getattr(model, name).state_dict()
        for key, value in own.items():
            other = tensors.get(f"teacher.{key}")
            if other is not None and other.shape == value.shape:
                value.copy_(other)
                copied += 1
    return copied
