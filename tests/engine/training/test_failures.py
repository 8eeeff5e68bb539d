"""Skipped steps are counted, and errors of torch become reasons with advice."""

from __future__ import annotations

import pytest
import torch

from napari_dycon.engine.training.failures import (
    MAX_NONFINITE_STEPS,
    NonFiniteGuard,
    to_engine_error,
)
from napari_dycon.errors import EngineError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_each_skipped_step_is_a_warning_and_counts() -> None:
    guard = NonFiniteGuard(total=2)
    events = list(guard.count([(0, True), (1, False), (2, True), (3, False)]))
    assert [event.event for event in events] == ["warning", "warning"]
    assert events[0].message.startswith("Step 2 was skipped")
    assert guard.total == 4


def test_a_run_fails_after_too_many_skipped_steps_in_a_row() -> None:
    guard = NonFiniteGuard()
    list(guard.count((step, False) for step in range(MAX_NONFINITE_STEPS - 1)))
    list(guard.count([(0, True)]))  # a finite one in between
    list(guard.count((step, False) for step in range(MAX_NONFINITE_STEPS - 1)))
    with pytest.raises(EngineError, match="50 steps in a row gave no finite loss"):
        list(guard.count([(0, False)]))
    assert guard.total == 2 * MAX_NONFINITE_STEPS - 1


def test_a_restored_checkpoint_resets_the_count_of_skipped_steps() -> None:
    guard = NonFiniteGuard()
    list(guard.count((step, False) for step in range(MAX_NONFINITE_STEPS - 1)))
    guard.restore(3)
    list(guard.count([(0, False)]))
    assert guard.total == 4


def test_memory_and_other_errors_give_a_reason_and_advice() -> None:
    card = str(to_engine_error(RuntimeError("CUDA out of memory"), CUDA, has_checkpoint=True))
    assert card.startswith("The graphics card ran out of memory")
    assert "train on the CPU" in card
    assert "can be resumed" in card
    computer = str(to_engine_error(MemoryError(), CPU, has_checkpoint=False))
    assert computer.startswith("This computer ran out of memory")
    assert "resumed" not in computer
    other = str(to_engine_error(OSError("no space\nmore"), CPU, has_checkpoint=True))
    assert other == ("Training stopped because of an error: no space. The last checkpoint is kept.")
