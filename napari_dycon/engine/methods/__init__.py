"""Training methods; see ``base.py`` for their interface."""

from __future__ import annotations

from collections.abc import Callable

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.methods.base import Method
from napari_dycon.engine.methods.dycon import DyCON
from napari_dycon.engine.methods.mean_teacher import MeanTeacher
from napari_dycon.engine.methods.secl import SECL
from napari_dycon.engine.methods.supervised import Supervised

METHODS: dict[str, Callable[[TrainConfig], Method]] = {
    "supervised": Supervised,
    "mean-teacher": MeanTeacher,
    "dycon": DyCON,
    "secl-region": SECL,
    "secl-anatomical": SECL,
}


def build_method(config: TrainConfig) -> Method:
    """Build the method of a configuration."""
    return METHODS[config.method](config)
