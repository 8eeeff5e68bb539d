"""Initialization of a run with the weights of another one."""

from __future__ import annotations

from pathlib import Path

from napari_dycon.engine.checkpoints.model_file import (
    TrainedModel,
    build_tensor_infos,
    strip_prefix,
)
from napari_dycon.engine.checkpoints.safetensors_io import (
    open_untrusted_safetensors,
    parse_description,
)


def load_matching_weights(model: TrainedModel, source: Path) -> float:
    """Load matching weights of another run; return the fraction of tensors that match.

    Tensors of another shape (other classes, another network) keep their random initialization.
    """
    expected_infos = build_tensor_infos("teacher", model.student)
    with open_untrusted_safetensors(source) as file:
        parse_description(file)  # rejects files of other programs and newer versions
        matching = [name for name, info in expected_infos.items() if file.tensors.get(name) == info]
        tensors = strip_prefix("teacher", file.read_tensors(matching))
    for network in (model.student, model.teacher):
        state = network.state_dict()
        for key, value in tensors.items():
            state[key].copy_(value)
    return len(tensors) / len(expected_infos)
