"""Settings of a training run.

``TrainConfig`` holds all settings in groups (``config_groups.py``); it is saved with the weights as
``config.json``. Fields that are ``None`` are planned from the data (``data/planning.py``). A
setting is named by its group and field, such as ``fecl.focal_gamma``. Nothing here imports torch,
so that a window can prepare a run without loading it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, Strict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from napari_dycon.engine.config_errors import describe_error
from napari_dycon.engine.config_groups import (
    AtlasConfig,
    AugmentationConfig,
    BatchConfig,
    Bool,
    FeCLConfig,
    InferenceConfig,
    Integer,
    IntervalsConfig,
    NetworkConfig,
    Number,
    OptimizerConfig,
    PreprocessingConfig,
    SECLConfig,
    SemiSupervisedConfig,
    SettingsGroup,
    UnCLConfig,
)
from napari_dycon.engine.presets import load_preset
from napari_dycon.errors import ConfigError

Method = Literal["dycon", "secl-region", "secl-anatomical", "mean-teacher", "supervised"]
Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
METHODS: tuple[str, ...] = get_args(Method)
DEVICES: tuple[str, ...] = get_args(Device)

UNLIMITED_STEPS = 10_000_000  # for runs that only a time limit ends


class TrainConfig(SettingsGroup):
    """All settings of a training run."""

    method: Method = Field(default="dycon", description="Training method.")
    preset: Annotated[str, Strict()] = Field(
        default="default", description="Preset that the settings are based on."
    )
    seed: Annotated[Integer, Field(ge=0, le=2**40)] = Field(default=0, description="Random seed.")
    device: Device = Field(default="auto", description="Device to train on.")
    precision: Precision = Field(
        default="auto", description="Precision of the networks' computations."
    )
    # A run ends at whichever comes first; schedules follow the larger fraction.
    steps: Annotated[Integer, Field(ge=1, le=10**9)] = Field(
        default=2000, description="Maximum number of training steps."
    )
    time_limit: Annotated[Number, Field(gt=0, le=10**8)] | None = Field(
        default=None,
        description="Maximum duration of the run in seconds, everything included: preparation, "
        "registration, training, previews, validation and saving.",
    )
    preview: Bool = Field(
        default=True, description="Predict the displayed case while training runs."
    )
    validation: Bool = Field(
        default=True,
        description="Evaluate the validation cases while training runs; they are evaluated at its "
        "end in any case.",
    )
    init_from: Annotated[str, Strict()] | None = Field(
        default=None, description="Run whose weights this one is initialized from."
    )
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    network: NetworkConfig = NetworkConfig()
    batch: BatchConfig = BatchConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    semi_supervised: SemiSupervisedConfig = SemiSupervisedConfig()
    uncl: UnCLConfig = UnCLConfig()
    fecl: FeCLConfig = FeCLConfig()
    secl: SECLConfig = SECLConfig()
    atlas: AtlasConfig = AtlasConfig()
    inference: InferenceConfig = InferenceConfig()
    intervals: IntervalsConfig = IntervalsConfig()

    @model_validator(mode="after")
    def _check_together(self) -> TrainConfig:
        network, patch = self.network, self.batch.patch_size
        if self.batch.activation_checkpointing and network.norm == "batch":
            raise ValueError(
                "batch.activation_checkpointing cannot be used with network.norm batch"
            )
        if (
            patch is not None
            and network.filters is not None
            and network.norm != "group"
            and all(side <= network.stride for side in patch)
        ):
            raise ValueError(
                f"batch.patch_size {patch} is a single location of the coarsest level, which "
                f"network.norm {network.norm} does not support; expected a larger patch, or "
                "network.norm=group"
            )
        return self

    def with_changes(
        self, settings: Mapping[str, Any] | None = None, /, **more: Any
    ) -> TrainConfig:
        """Return a copy with some settings replaced, by ``group.field`` or as nested mappings."""
        return TrainConfig.from_dict(merge_settings(self.to_dict(), {**(settings or {}), **more}))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build from JSON values; unknown names and wrong values raise ``ConfigError``."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(describe_error(error.errors()[0], dict(iterate_settings()))) from None


def iterate_settings() -> Iterator[tuple[str, FieldInfo]]:
    """Iterate over name and field of every setting, in the order of the groups."""
    for name, field in TrainConfig.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, SettingsGroup):
            for inner, inner_field in group.model_fields.items():
                yield f"{name}.{inner}", inner_field
        else:
            yield name, field


def merge_settings(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with changes, whose names may be dotted, without modifying either."""
    merged = dict(values)
    for key, value in changes.items():
        name, dot, rest = key.partition(".")
        if dot:
            value = {rest: value}
        if isinstance(value, Mapping):
            inner = merged.get(name, {})
            merged[name] = merge_settings(inner if isinstance(inner, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged


def make_config(
    method: str, preset: str = "default", settings: Mapping[str, Any] | None = None, /, **more: Any
) -> TrainConfig:
    """Combine a preset with further settings.

    A preset may hold settings for all methods at its top level and settings of single methods under
    ``"methods"``; ``settings`` take precedence over both. With a ``time_limit`` and no ``steps``,
    the time alone ends the run.

    Parameters
    ----------
    method : one of ``METHODS``
    preset : one of ``list_presets()``
    settings : values by ``group.field``, or nested mappings of groups
    **more : further settings, for names without a dot
    """
    values = load_preset(preset)
    values = merge_settings(values, values.pop("methods", {}).get(method, {}))
    changes = {**(settings or {}), **more}
    for name in changes.keys() & {"method", "preset"}:
        raise ConfigError(
            f"{name} is given as the setting {changes[name]!r}; expected it as an argument: "
            "make_config(method, preset, settings)."
        )
    if changes.get("time_limit") is not None and "steps" not in changes:
        changes["steps"] = UNLIMITED_STEPS
    values = merge_settings(values, changes)
    return TrainConfig.from_dict({**values, "method": method, "preset": preset})


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Parse ``NAME=VALUE`` pairs such as ``"batch.patch_size=[32,48,32]"`` into a dictionary."""
    result: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key:
            raise ConfigError(
                f"'{pair}' is not a setting. Write NAME=VALUE, such as fecl.focal_gamma=1."
            )
        try:
            result[key.strip()] = json.loads(text)
        except (ValueError, RecursionError):
            result[key.strip()] = text
    return result
