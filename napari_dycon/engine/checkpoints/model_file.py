"""Trained networks in ``weights.safetensors``: weights, and metadata needed for prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    StrictFloat,
    StrictInt,
    ValidationError,
    field_validator,
)
from torch import Tensor, nn

from napari_dycon.engine.checkpoints.safetensors_io import (
    TensorInfo,
    incompatible_error,
    open_untrusted_safetensors,
    parse_description,
    write_tensors,
)
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.cases import LabeledCase
from napari_dycon.engine.inference.windows import OVERLAP_SIDE
from napari_dycon.engine.network import SegmentationNetwork, build_network
from napari_dycon.errors import ConfigError
from napari_dycon.io.volume import MAX_CHANNELS

_DTYPE_NAMES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}
_FIELD_DESCRIPTIONS = {
    "class_values": "its list of classes",
    "channels": "its number of channels",
    "temperature": "its temperature",
    "window_side": "its window size",
}


@dataclass(frozen=True)
class TrainedModel:
    """Networks ready to predict, with the meaning of their outputs."""

    student: SegmentationNetwork
    teacher: SegmentationNetwork
    config: TrainConfig
    class_values: tuple[int, ...]  # label value of output 1, 2, ...; output 0 is background
    channels: int
    temperature: float = 1.0  # logits are divided by it; see temperature_scaling.py
    atlases: tuple[tuple[LabeledCase, ...], ...] = ()  # for fusion; see templates.py
    window_side: float = 1.0  # of windows, in sides of the patch; see window_choice.py
    window_overlap: float = OVERLAP_SIDE  # of windows, in sides of the patch


class ModelMetadata(BaseModel):
    """Validated description of the networks in a ``weights.safetensors``."""

    model_config = ConfigDict(frozen=True)

    config: InstanceOf[TrainConfig]
    class_values: Annotated[
        tuple[Annotated[StrictInt, Field(ge=1, le=254)], ...], Field(min_length=1, max_length=254)
    ]
    channels: Annotated[StrictInt, Field(ge=1, le=MAX_CHANNELS)]
    temperature: Annotated[StrictFloat, Field(ge=1e-3, le=1e3, allow_inf_nan=False)]
    window_side: Annotated[StrictFloat, Field(ge=0.5, le=4.0, allow_inf_nan=False)] = 1.0

    @field_validator("class_values")
    @classmethod
    def _reject_duplicates(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(values)) < len(values):
            raise ValueError("class values must differ")
        return values

    @classmethod
    def parse(cls, path: Path, description: Mapping[str, Any]) -> Self:
        """Validate the description in a file; anything wrong is a ``ConfigError``."""
        settings = description.get("config")
        if not isinstance(settings, dict):
            raise incompatible_error(path, "its settings are missing")
        try:
            config = TrainConfig.from_dict(settings)
        except ConfigError as error:
            raise incompatible_error(path, str(error).rstrip(".")) from None
        if (
            config.network.filters is None
            or config.batch.patch_size is None
            or config.preprocessing.spacing is None
        ):
            raise incompatible_error(path, "its filters, patch and spacing are missing")
        try:
            return cls.model_validate({**description, "config": config})
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            reason = f"{_FIELD_DESCRIPTIONS[field]} is missing or invalid"
            raise incompatible_error(path, reason) from None


def describe_model(model: TrainedModel, step: int) -> dict[str, Any]:
    """Return the JSON description of a model that ``ModelMetadata.parse`` reads."""
    return {
        "config": model.config.to_dict(),
        "class_values": list(model.class_values),
        "channels": model.channels,
        "temperature": model.temperature,
        "window_side": model.window_side,
        "step": step,
    }


def collect_network_tensors(model: TrainedModel) -> dict[str, Tensor]:
    """Return the tensors of both networks under their names in a file."""
    return {
        f"{name}.{key}": value.detach()
        for name, module in (("student", model.student), ("teacher", model.teacher))
        for key, value in module.state_dict().items()
    }


def copy_to_host(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Callable[[], None]]:
    """Copy tensors to the host without waiting; also returns a function that waits."""
    copies = {name: _copy_tensor_to_host(value) for name, value in tensors.items()}
    if any(value.device.type == "cuda" for value in tensors.values()):
        copy_event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copy_event.record()
        return copies, copy_event.synchronize
    return copies, _do_nothing


def _copy_tensor_to_host(tensor: Tensor) -> Tensor:
    """Copy to the host, in C order whatever the layout; from CUDA without waiting for it."""
    is_cuda = tensor.device.type == "cuda"
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=is_cuda)
    return host.copy_(tensor.detach(), non_blocking=is_cuda)


def _do_nothing() -> None:
    """Wait for nothing."""


def save_weights(path: Path, model: TrainedModel, step: int) -> None:
    """Write student and teacher with the configuration and the classes."""
    tensors, wait_until_copied = copy_to_host(collect_network_tensors(model))
    wait_until_copied()
    write_tensors(path, tensors, describe_model(model, step))


def load_model(path: Path, device: torch.device | None = None) -> TrainedModel:
    """Read a ``weights.safetensors`` and build its networks, in evaluation mode.

    The file is not trusted: its header, its settings and the shapes of all tensors are compared
    before memory is allocated for any of them.

    Raises
    ------
    ConfigError
        The file is missing, a pickle, damaged, of another network than its settings describe, or
        holds numbers that are not finite.
    """
    with open_untrusted_safetensors(path) as file:
        metadata = ModelMetadata.parse(path, parse_description(file))
        config, channels, n_classes = (
            metadata.config,
            metadata.channels,
            len(metadata.class_values) + 1,
        )
        with torch.device("meta"):  # shapes alone, no memory
            meta_network = build_network(config, channels, n_classes)
        _check_tensors(
            path,
            file.tensors,
            build_tensor_infos("student", meta_network)
            | build_tensor_infos("teacher", meta_network),
        )
        tensors = file.read_tensors(file.tensors)
    networks = {}
    for name in ("student", "teacher"):
        network = build_network(config, channels, n_classes)
        network.load_state_dict(strip_prefix(name, tensors))
        # Measured on CPUs: a fifth less time than contiguous channels.
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        networks[name] = network.to(device or torch.device("cpu")).eval()
    student, teacher = networks["student"], networks["teacher"]
    return TrainedModel(
        student,
        teacher,
        config,
        metadata.class_values,
        channels,
        metadata.temperature,
        window_side=metadata.window_side,
    )


def _check_tensors(
    path: Path, actual: Mapping[str, TensorInfo], expected: Mapping[str, TensorInfo]
) -> None:
    """Compare the tensors of a header with those of a network, before one is read."""
    for name in sorted(set(actual) ^ set(expected)):
        problem = "lacks the tensor" if name in expected else "has an unknown tensor"
        raise incompatible_error(path, f"it {problem} {name[:80]!r}")
    for name, info in expected.items():
        if actual[name] != info:
            sizes = " and ".join(f"{e.dtype} {list(e.shape)}" for e in (actual[name], info))
            raise incompatible_error(path, f"{name} does not match its settings ({sizes})")


def build_tensor_infos(prefix: str, module: nn.Module) -> dict[str, TensorInfo]:
    """Return types and shapes of a network's tensors under their names in a file."""
    return {
        f"{prefix}.{name}": TensorInfo(_DTYPE_NAMES[value.dtype], tuple(value.shape))
        for name, value in module.state_dict().items()
    }


def strip_prefix(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of one network under their names in the network."""
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
