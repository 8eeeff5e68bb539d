"""The settings of one training run, and the presets they start from.

One frozen dataclass holds everything that decides what a run does; it is saved beside the weights
as ``config.json``. Fields that are ``None`` are left to the plan (see ``plan.py``), which fills
them from the data. Nothing here imports torch, so that a window can prepare a run without
loading it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from napari_dycon.engine.ranges import check_ranges
from napari_dycon.errors import ConfigError

METHODS = ("dycon", "secl-region", "secl-anatomical", "mean-teacher", "supervised")
DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
NORMS = ("instance", "group", "batch")
MAX_FLOAT = 1e30
# Of training alone, by earlier versions; weights that were saved with them predict as before.
RETIRED_SETTINGS = ("top_k", "teacher_negatives")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run does.

    Lengths of patches are voxels ``(D, H, W)`` of the planned spacing, spacings are millimeters,
    times are seconds. Symbols in comments are those of the papers.
    """

    method: str = "dycon"
    preset: str = "default"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    # How long. A run ends at whichever comes first; schedules follow the larger share.
    steps: int = 2000
    time_limit: float | None = None
    init_from: str | None = None  # run whose last weights this one starts from

    # The plan: None means "decide from the data".
    spacing: tuple[float, float, float] | None = None
    patch: tuple[int, int, int] | None = None
    intensity: str | None = None  # "zscore" (per case) or "window" (fixed range, CT)
    window: tuple[float, float] | None = None

    # Network
    filters: tuple[int, ...] | None = None
    half_resolution: bool | None = None  # all but the last layer on a grid of half the resolution
    norm: str = "group"
    projection_hidden: int = 128
    projection_dim: int = 64
    aspp: bool = False

    # Batches and augmentation
    labeled_batch: int = 2
    unlabeled_batch: int = 2
    accumulation_steps: int = 1  # parts that each step's batch is computed in, to save memory
    activation_checkpointing: bool = False  # compute features again in the backward pass, likewise
    foreground_share: float = 0.5  # labeled patches centerd on an annotated structure
    augment: bool = True
    rotate_degrees: float = 17.0
    scale_range: float = 0.25
    mirror: bool = False  # left and right look alike only in some anatomies

    # Optimization
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    warmup: float = 0.02  # share of the run
    clip_norm: float = 1.0
    ema_decay: float = 0.99

    # The unlabeled part of the loss (see docs of each loss)
    unlabeled_start: float = 0.8  # share of the run before the unlabeled half takes part
    unsupervised_weight: float = 0.5  # u
    consistency_weight: float = 0.1  # w
    consistency_ramp: float = 0.4  # T_ramp / T
    teacher_noise: float = 0.1
    beta_max: float = 5.0
    beta_min: float = 0.5
    entropy_weight: float = 1.0
    uncl_weight: float = 1.0
    fecl_weight: float = 0.1
    temperature: float = 0.6
    gamma: float = 2.0
    fecl_negative_gamma: float = 0.0  # γ⁻, 0: all negatives weigh alike
    fecl_teacher_weight: float = 0.0  # λ, of the pairs with the teacher's cells
    fecl_entropy: bool = True  # weight anchors by exp(h)
    cross_volume: bool = False  # pairs also between patches of different volumes
    teacher_confidence: float = 0.8  # below it a cell of an unlabeled patch has no class
    # Labeled scans in the shapes of unlabeled ones (see warps.py)
    warps: int = 0  # how many at most
    vote_share: float = 0.6  # of the labeled patches, from scans that their labels agree on
    warp_share: float = 0.5  # of the others, from deformed scans; over the root of labeled cases
    # SECL
    secl_weight: float = 0.1
    secl_temperature: float = 0.1
    regions: tuple[int, int, int] = (4, 4, 4)

    # Prediction
    test_scales: tuple[float, ...] = (1.0, 0.9)  # sizes in which student and teacher see a scan
    test_mirror: bool = False  # seen once more with left and right exchanged
    atlas_weight: float = 0.0  # of what labeled scans deformed into it say (see atlas.py)
    templates: int = 8  # unlabeled scans that have a say then as well (see templates.py)

    # While running, seconds between
    validate_every: float = 60.0
    checkpoint_every: float = 60.0
    preview_every: float = 15.0

    def __post_init__(self) -> None:
        _check(self)

    def with_changes(self, **changes: Any) -> TrainConfig:
        """Copy with some fields replaced; the copy is checked again."""
        return dataclasses.replace(self, **changes)

    def registration_augmentation_probability(self, n_labeled: int) -> float:
        """Share of the labeled patches from deformed scans, of which ``own`` were labeled.

        The more scans people have labeled themselves, the less has to be borrowed.
        """
        return self.warp_share / math.sqrt(n_labeled)

    @property
    def stride(self) -> int:
        """Voxels of a patch along one side of a bottleneck cell; filters must be planned."""
        halvings = len(self.filters or ()) - 1 + bool(self.half_resolution)
        return int(2 ** max(halvings, 0))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build from JSON values; unknown names and wrong types raise ``ConfigError``."""
        hints = typing.get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            matches = difflib.get_close_matches(unknown[0], hints, cutoff=0.5)
            suggestion = f"Did you mean {matches[0]}? " if matches else ""
            raise ConfigError(
                f"Unknown setting {', '.join(unknown)}. {suggestion}"
                f"Known settings: {', '.join(sorted(hints))}."
            )
        return cls(**{key: _convert(key, value, hints[key]) for key, value in values.items()})


def list_presets() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = resources.files("napari_dycon") / "resources" / "presets"
    return sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith("json"))


def describe_preset(name: str) -> str:
    """What a preset is for, in a sentence."""
    return str(_read_preset(name).get("description", ""))


def load_preset(name: str) -> dict[str, Any]:
    """Settings of a preset as a dictionary of field names."""
    values = _read_preset(name)
    values.pop("description", None)
    return values


def _read_preset(name: str) -> dict[str, Any]:
    if name not in list_presets():
        raise ConfigError(
            f"There is no preset '{name}'. Choose one of: {', '.join(list_presets())}."
        )
    file = resources.files("napari_dycon") / "resources" / "presets" / f"{name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))


def make_config(method: str, preset: str = "default", **changes: Any) -> TrainConfig:
    """Combine a preset with a person's own choices.

    A preset may hold settings for all methods at its top level and, under ``"methods"``, some for
    one method; what the person chose wins over both.
    """
    values = load_preset(preset)
    per_method = values.pop("methods", {}).get(method, {})
    merged = {**values, **per_method, **changes, "method": method, "preset": preset}
    return TrainConfig.from_dict(merged)


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Turn ``["learning_rate=0.01", "patch=[32,48,32]"]`` into a dictionary."""
    result: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise ConfigError(f"'{pair}' is not a setting. Write NAME=VALUE, such as gamma=1.")
        try:
            result[key.strip()] = json.loads(text)
        except ValueError:
            result[key.strip()] = text
    return result


def _convert(key: str, value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None:
        if type(None) in options:
            return None
        raise ConfigError(f"Setting {key} needs a value, found none.")
    for option in options:
        origin = typing.get_origin(option) or option
        if origin is tuple and isinstance(value, (list, tuple)):
            kinds = typing.get_args(option)
            items = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
            if len(items) == len(value):
                return tuple(_convert(key, v, kind) for v, kind in zip(value, items, strict=True))
        elif (origin is bool and isinstance(value, bool)) or (
            origin is int and isinstance(value, int) and not isinstance(value, bool)
        ):
            return value
        elif origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            if not abs(value) <= MAX_FLOAT:  # nor nan
                raise ConfigError(f"Setting {key} is out of range; expected a finite number.")
            return float(value)
        elif origin is str and isinstance(value, str):
            return value
    shown_value = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."
    raise ConfigError(f"Setting {key} cannot be {shown_value}; expected {_format_type(hint)}.")


def _format_type(hint: Any) -> str:
    """What a person may write for a type."""
    examples = {int: "1", float: "0.5"}
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    if isinstance(hint, types.UnionType):
        return " or ".join(_format_type(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        count = "" if kinds[-1] is Ellipsis else f"{len(kinds)} "
        example = ",".join([examples[kinds[0]]] * (len(kinds) if count else 2))
        return f"a list of {count}numbers such as [{example}]"
    return words.get(hint, "null")


def _check(config: TrainConfig) -> None:
    choices = {
        "method": METHODS,
        "device": DEVICES,
        "precision": PRECISIONS,
        "norm": NORMS,
        "optimizer": ("adamw", "sgd"),
        "intensity": (None, "zscore", "window"),
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            known = ", ".join(str(a) for a in allowed if a is not None)
            raise ConfigError(
                f"Setting {name} is '{getattr(config, name)}'; expected one of: {known}."
            )
    check_ranges(config)
    positive = ("steps", "labeled_batch", "learning_rate", "temperature", "beta_min")
    for name in (*positive, "beta_max", "projection_dim", "projection_hidden", "clip_norm"):
        if not getattr(config, name) > 0:
            raise ConfigError(f"Setting {name} is {getattr(config, name)}; expected more than 0.")
    if config.time_limit is not None and not config.time_limit > 0:
        raise ConfigError(f"The time limit is {config.time_limit} s; expected more than 0.")
    scales = config.test_scales
    if len(scales) < 2 or any(not 0.5 <= scale <= 2.0 for scale in scales):
        raise ConfigError(
            f"Setting test_scales is {list(scales)}; expected two or more of 0.5 to 2, by turns "
            "for student and teacher."
        )
    for name in (
        "foreground_share",
        "warp_share",
        "vote_share",
        "atlas_weight",
        "ema_decay",
        "unlabeled_start",
        "warmup",
    ):
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"Setting {name} is {getattr(config, name)}; expected 0 to 1.")
    if math.gcd(config.labeled_batch, config.unlabeled_batch) % config.accumulation_steps:
        raise ConfigError(
            f"Setting accumulation_steps is {config.accumulation_steps}; expected a divisor of "
            f"labeled_batch ({config.labeled_batch}) and unlabeled_batch "
            f"({config.unlabeled_batch})."
        )
    if config.activation_checkpointing and config.norm == "batch":
        raise ConfigError("Setting activation_checkpointing needs another norm than batch.")
    if config.filters is not None and len(config.filters) < 3:
        raise ConfigError("Setting filters needs at least 3 levels, such as [16, 32, 64].")
    if config.patch is None or config.filters is None:
        return
    if config.norm != "group" and all(p <= config.stride for p in config.patch):
        raise ConfigError(
            f"Patch {config.patch} is a single cell of the coarsest level, which norm "
            f"{config.norm} cannot work with; expected a larger patch, or norm=group."
        )
