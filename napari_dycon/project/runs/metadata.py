"""Contents of ``metrics.json`` and ``control.json`` of a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from napari_dycon.project.untrusted_model import UntrustedModel

Outcome = Literal["finished", "stopped"]
Command = Literal["run", "pause", "stop"]
Count = Annotated[int, Field(ge=0, le=10**12)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class RunMetrics(UntrustedModel):
    """How a run ended. Fields are ``None`` while it has not ended, or if they are invalid."""

    step: Count | None = Field(default=None, description="Number of steps taken.")
    elapsed_s: Annotated[float, Field(ge=0, le=1e12)] | None = Field(
        default=None, description="Training time in seconds."
    )
    skipped: Count | None = Field(
        default=None, description="Number of steps skipped because their loss was not finite."
    )
    dice: Fraction | None = Field(
        default=None,
        description="Mean validation Dice of the networks only; None without validation.",
    )
    outcome: Outcome | None = Field(default=None, description="How the run ended.")
    validation: dict[str, Any] | None = Field(
        default=None, description="Last validation: dice, mean and skipped_cases."
    )
    temperature: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        default=None, description="Divisor of the logits, fitted to the validation cases."
    )
    window_side: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        default=None, description="Side of the prediction windows, relative to the patch."
    )
    labeled: list[str] | None = Field(
        default=None, description="Ids of the labeled cases that the run learned from."
    )
    unlabeled: Count | None = Field(default=None, description="Number of unlabeled cases.")


class RunControl(UntrustedModel):
    """What the user asks of a run while it trains."""

    command: Command = Field(default="run", description="What the run should do.")
    preview: str | None = Field(
        default=None, description="Id of the case to predict during training."
    )
