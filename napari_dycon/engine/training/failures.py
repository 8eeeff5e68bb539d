"""Failures of a run: steps without a finite loss, and errors of torch or the operating system."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.errors import EngineError
from napari_dycon.project.runs.events import Event, WarningEvent

MAX_NONFINITE_STEPS = 50  # in a row; after these a run has failed


class NonFiniteGuard:
    """Counter of steps that were skipped because their loss was not finite.

    Parameters
    ----------
    total : skipped steps before a resume
    """

    def __init__(self, total: int = 0) -> None:
        self.total = total
        self._consecutive = 0

    def restore(self, total: int) -> None:
        """Continue with the count of a checkpoint."""
        self.total, self._consecutive = total, 0

    def count(self, outcomes: Iterable[tuple[int, bool]]) -> Iterator[Event]:
        """Count steps and yield a warning for each skipped one.

        Parameters
        ----------
        outcomes : number of each step (from 0), and whether its loss was finite

        Raises
        ------
        EngineError
            ``MAX_NONFINITE_STEPS`` steps in a row were skipped.
        """
        for step, is_finite in outcomes:
            if is_finite:
                self._consecutive = 0
                continue
            self._consecutive += 1
            self.total += 1
            yield WarningEvent(
                message=f"Step {step + 1} was skipped because its loss was not a finite number "
                f"({self.total} skipped so far)."
            )
            if self._consecutive >= MAX_NONFINITE_STEPS:
                raise EngineError(
                    f"{self._consecutive} steps in a row gave no finite loss. Lower the learning "
                    "rate, or check the scans for extreme values. The last checkpoint is kept."
                )


def to_engine_error(
    error: BaseException, device: torch.device, *, has_checkpoint: bool
) -> EngineError:
    """Translate an error of torch or the operating system into a reason and advice."""
    checkpoint_note = " The last checkpoint is kept" if has_checkpoint else ""
    if is_out_of_memory(error):
        on_cpu = device.type == "cpu"
        device_name = "This computer" if on_cpu else "The graphics card"
        advice = "close other programs" if on_cpu else "close other programs, or train on the CPU"
        return EngineError(
            f"{device_name} ran out of memory, even with the smallest steps. To continue, {advice}."
            + (checkpoint_note and f"{checkpoint_note}: the run can be resumed from it.")
        )
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    checkpoint_note = checkpoint_note and f"{checkpoint_note}."
    return EngineError(
        f"Training stopped because of an error: {text.rstrip('.')}.{checkpoint_note}"
    )
