"""Groups of the settings of a training run, with the bounds of each; see ``config.py``."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    field_validator,
    model_validator,
)

from napari_dycon.engine.config_errors import MAX_NUMBER

MAX_LEVELS = 8
MAX_PATCH_VOXELS = 512**3
MAX_TTA_SCALES = 8

# Projects and weights are untrusted: bounds keep sizes within what memory can hold.
Bool = Annotated[bool, Strict()]
Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False), Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Side = Annotated[Integer, Field(ge=1, le=1024)]
Channels = Annotated[Integer, Field(ge=1, le=1024)]
SpacingMm = Annotated[Number, Field(ge=1e-6, le=1e4)]
RegionCount = Annotated[Integer, Field(ge=1, le=64)]
Scale = Annotated[Number, Field(ge=0.5, le=2)]


class SettingsGroup(BaseModel):
    """Settings that cannot be changed, without unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PreprocessingConfig(SettingsGroup):
    """Resampling and normalization of scans."""

    spacing: tuple[SpacingMm, SpacingMm, SpacingMm] | None = Field(
        default=None,
        description="Voxel spacing (D, H, W) in mm; planned from the scans if not given.",
    )
    normalization: Literal["zscore", "clip"] | None = Field(
        default=None,
        description="zscore: mean and standard deviation of each scan; clip: a fixed intensity "
        "window (CT). Planned from the scans if not given.",
    )
    intensity_window: tuple[Number, Number] | None = Field(
        default=None, description="Lower and upper intensity of normalization clip."
    )

    @field_validator("intensity_window")
    @classmethod
    def _check_order(cls, window: tuple[float, float] | None) -> tuple[float, float] | None:
        if window is not None and window[0] > window[1]:
            raise ValueError(f"is {window}; expected the lower end first, then the upper end")
        return window


class NetworkConfig(SettingsGroup):
    """The network: a residual U-Net with a projection head."""

    filters: Annotated[tuple[Channels, ...], Field(max_length=MAX_LEVELS)] | None = Field(
        default=None,
        description="Channels of each level, three or more levels; planned if not given.",
    )
    half_resolution: Bool | None = Field(
        default=None,
        description="Compute all but the last layer at half the resolution; planned if not given.",
    )
    norm: Literal["instance", "group", "batch"] = Field(
        default="group", description="Normalization layer."
    )
    projection_hidden: Annotated[Integer, Field(ge=1, le=4096)] = Field(
        default=128, description="Hidden channels of the projection head."
    )
    projection_dim: Annotated[Integer, Field(ge=1, le=4096)] = Field(
        default=64, description="Length of an embedding."
    )
    aspp: Bool = Field(
        default=False, description="Atrous spatial pyramid pooling in the projection head."
    )

    @field_validator("filters")
    @classmethod
    def _check_levels(cls, filters: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if filters is not None and len(filters) < 3:
            raise ValueError("needs at least 3 levels, such as [16, 32, 64]")
        return filters

    @property
    def stride(self) -> int:
        """Downsampling factor at the bottleneck; the filters must be planned."""
        halvings = len(self.filters or ()) - 1 + bool(self.half_resolution)
        return int(2 ** max(halvings, 0))


class BatchConfig(SettingsGroup):
    """Patches of a training step."""

    patch_size: tuple[Side, Side, Side] | None = Field(
        default=None, description="Voxels (D, H, W) of a patch; planned if not given."
    )
    labeled_size: Annotated[Integer, Field(ge=1, le=256)] = Field(
        default=2, description="Labeled patches in a step."
    )
    unlabeled_size: Annotated[Integer, Field(ge=0, le=256)] = Field(
        default=2, description="Unlabeled patches in a step."
    )
    foreground_fraction: Fraction = Field(
        default=0.5,
        description="Fraction of labeled patches that are centered on an annotated structure.",
    )
    accumulation_steps: Annotated[Integer, Field(ge=1, le=256)] = Field(
        default=1, description="Number of micro-batches a step is split into, to save memory."
    )
    activation_checkpointing: Bool = Field(
        default=False, description="Recompute features in the backward pass, to save memory."
    )

    @field_validator("patch_size")
    @classmethod
    def _check_voxels(cls, patch: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if patch is not None and math.prod(patch) > MAX_PATCH_VOXELS:
            size = " × ".join(map(str, patch))
            raise ValueError(f"{size} has more than {MAX_PATCH_VOXELS:,} voxels, the maximum")
        return patch

    @model_validator(mode="after")
    def _check_micro_batches(self) -> BatchConfig:
        if math.gcd(self.labeled_size, self.unlabeled_size) % self.accumulation_steps:
            raise ValueError(
                f"batch.accumulation_steps is {self.accumulation_steps}; expected a divisor of "
                f"batch.labeled_size ({self.labeled_size}) and batch.unlabeled_size "
                f"({self.unlabeled_size})"
            )
        return self


class AugmentationConfig(SettingsGroup):
    """Random augmentation of training patches."""

    enabled: Bool = Field(default=True, description="Augment patches at random.")
    max_rotation_degrees: Annotated[Number, Field(ge=0, le=360)] = Field(
        default=17.0, description="Largest rotation about each axis."
    )
    scale_range: Annotated[Number, Field(ge=0, le=0.9)] = Field(
        default=0.25, description="Largest relative change of size."
    )
    flip_left_right: Bool = Field(
        default=False, description="Randomly flip left and right; only for symmetric anatomy."
    )


class OptimizerConfig(SettingsGroup):
    """The optimizer and its learning rate schedule."""

    name: Literal["adamw", "sgd"] = Field(default="adamw", description="Optimizer.")
    learning_rate: Positive = Field(default=2e-3, description="Peak learning rate.")
    weight_decay: NonNegative = Field(default=1e-2, description="Weight decay.")
    momentum: NonNegative = Field(default=0.9, description="Momentum of SGD.")
    warmup_fraction: Fraction = Field(
        default=0.02, description="Fraction of the run over which the learning rate rises."
    )
    grad_clip_norm: Positive = Field(default=1.0, description="Gradients are clipped to this norm.")


class SemiSupervisedConfig(SettingsGroup):
    """Unsupervised loss and teacher."""

    start: Fraction = Field(
        default=0.8,
        description="Fraction of the run after which semi-supervised training starts.",
    )
    weight: NonNegative = Field(default=0.5, description="u, weight of the unsupervised loss.")
    consistency_weight: NonNegative = Field(
        default=0.1, description="w, maximum weight of the consistency loss."
    )
    consistency_rampup: Fraction = Field(
        default=0.4,
        description="Fraction of the semi-supervised phase over which that weight rises.",
    )
    teacher_noise_std: NonNegative = Field(
        default=0.1,
        description="Standard deviation of the noise added to the teacher's input.",
    )
    pseudo_label_threshold: Fraction = Field(
        default=0.8,
        description="Teacher confidence below which a location has no class in FeCL and SECL; "
        "pseudo-labels of atlases do not use it.",
    )
    ema_decay: Fraction = Field(
        default=0.99,
        description="Decay of the exponential moving average of the teacher.",
    )


class UnCLConfig(SettingsGroup):
    """Uncertainty-aware consistency loss."""

    weight: NonNegative = Field(default=1.0, description="Weight of UnCL.")
    beta_max: Positive = Field(default=5.0, description="β at the beginning.")
    beta_min: Positive = Field(default=0.5, description="β at the end.")
    entropy_weight: NonNegative = Field(default=1.0, description="Factor of the entropy term.")


class FeCLConfig(SettingsGroup):
    """Focal entropy-aware contrastive loss."""

    weight: NonNegative = Field(default=0.1, description="Weight of FeCL.")
    temperature: Positive = Field(default=0.6, description="τ, temperature.")
    focal_gamma: Annotated[Number, Field(ge=0, le=100)] = Field(
        default=2.0, description="γ, focal exponent of positive pairs."
    )
    negative_gamma: Annotated[Number, Field(ge=0, le=100)] = Field(
        default=0.0, description="γ⁻, focal exponent of negative pairs; 0 weights all equally."
    )
    teacher_weight: Annotated[Number, Field(ge=0, le=1000)] = Field(
        default=0.0, description="λ, weight of pairs with the teacher's embeddings."
    )
    entropy_weighting: Bool = Field(default=True, description="Weight anchors by exp(entropy).")
    cross_patch: Bool = Field(
        default=False, description="Also use pairs between patches of different scans."
    )


class SECLConfig(SettingsGroup):
    """Self-ensembling contrastive loss."""

    weight: NonNegative = Field(default=0.1, description="Weight of the contrastive loss.")
    temperature: Positive = Field(default=0.1, description="τ, temperature.")
    region_grid: tuple[RegionCount, RegionCount, RegionCount] = Field(
        default=(4, 4, 4), description="Regions of a scan along each axis (secl-region)."
    )


class AtlasConfig(SettingsGroup):
    """Registration-based augmentation, atlas pseudo-labels, and atlas fusion at inference."""

    max_registration_pairs: Annotated[Integer, Field(ge=0, le=10_000)] = Field(
        default=0,
        description="Maximum number of labeled-unlabeled pairs registered before training.",
    )
    pseudo_label_fraction: Fraction = Field(
        default=0.6, description="Fraction of labeled patches that come from atlas pseudo-labels."
    )
    registration_augmentation_fraction: Fraction = Field(
        default=0.5,
        description="Fraction of the other labeled patches that come from registered scans, "
        "divided by the square root of the number of labeled cases.",
    )
    weight: Fraction = Field(
        default=0.0,
        description="Weight of the multi-atlas segmentation at inference; 0 disables it.",
    )
    templates: Annotated[Integer, Field(ge=0, le=100)] = Field(
        default=8,
        description="Unlabeled scans with predicted labels that serve as further atlases.",
    )

    def registration_augmentation_probability(self, n_labeled: int) -> float:
        """Return the probability of a patch from a registered scan; lower with more labels."""
        return self.registration_augmentation_fraction / math.sqrt(n_labeled)


class InferenceConfig(SettingsGroup):
    """Test-time augmentation."""

    tta_scales: Annotated[tuple[Scale, ...], Field(min_length=2, max_length=MAX_TTA_SCALES)] = (
        Field(
            default=(1.0, 0.9),
            description="Scales of the scan, alternating between student and teacher.",
        )
    )
    tta_flip_left_right: Bool = Field(
        default=False, description="Also predict with left and right flipped."
    )


class IntervalsConfig(SettingsGroup):
    """Intervals between periodic tasks of a run."""

    validation_s: NonNegative = Field(default=60.0, description="Seconds between validations.")
    checkpoint_s: NonNegative = Field(default=60.0, description="Seconds between checkpoints.")
    preview_s: NonNegative = Field(
        default=15.0, description="Seconds between previews of the active case."
    )
