"""Initialization of a run with the weights of an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.checkpoints.transfer import load_matching_weights
from napari_dycon.project.runs.events import Event, WarningEvent

# Fraction of the tensors of the earlier run; other classes alone leave more than this matching.
MIN_MATCHING_FRACTION = 0.75


@dataclass(frozen=True)
class InitialWeights:
    """Initial weights, and the cases whose labels they were trained on."""

    run_id: str
    path: Path
    trained_cases: frozenset[str]


def initialize_weights(
    model: TrainedModel, initial: InitialWeights, validation_cases: Sequence[str]
) -> Iterator[Event]:
    """Load the matching weights into student and teacher; yields warnings."""
    fraction = load_matching_weights(model, initial.path)
    if fraction < MIN_MATCHING_FRACTION:
        matching = f"only {fraction:.0%} of its weights match" if fraction else "no weights match"
        yield WarningEvent(
            message=f"Run {initial.run_id} has a different network: {matching}, and the rest "
            "starts from random weights. To reuse more, use a run with the same network "
            "settings."
        )
    if overlap := sorted(initial.trained_cases & set(validation_cases)):
        yield WarningEvent(
            message=f"Run {initial.run_id}, or a run it started from, was trained on "
            f"{len(overlap)} case(s) that are now used for validation ({overlap[0]}); their Dice "
            "is too optimistic."
        )
