"""Checkpoints are written from copies, one at a time, and reported once they are in place."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_runs import TINY
from safetensors.torch import load_file

from napari_dycon.engine.checkpoints import background_writer
from napari_dycon.engine.checkpoints.background_writer import CheckpointWriter
from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.checkpoints.training_state import (
    Snapshot,
    TrainingProgress,
    load_training_state,
    read_training_progress,
    take_snapshot,
)
from napari_dycon.engine.config import make_config
from napari_dycon.engine.network import build_network
from napari_dycon.engine.training.optimizer import allocate_state, build_optimizer
from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.events import CheckpointEvent, WarningEvent


class Slow:
    """Writing that waits until it is let go on, and how many were at it at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.at_work = self.most = 0
        self._usual = background_writer.write_snapshot  # type: ignore[attr-defined]
        monkeypatch.setattr(background_writer, "write_snapshot", self.write)

    def write(self, snapshot: Snapshot, weights: Path, state: Path) -> None:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        assert self.go_on.wait(60)
        self._usual(snapshot, weights, state)
        self.at_work -= 1


@pytest.fixture
def model() -> TrainedModel:
    config = make_config("supervised", **TINY)
    torch.manual_seed(0)
    student, teacher = build_network(config, 1, 2), build_network(config, 1, 2)
    student.to(memory_format=torch.channels_last_3d)
    return TrainedModel(student, teacher, config, (1,), 1)


def take_model_snapshot(model: TrainedModel, step: int) -> tuple[Snapshot, torch.optim.Optimizer]:
    optimizer = build_optimizer(model.config, model.student)
    allocate_state(optimizer)
    progress = TrainingProgress(step=step, elapsed_s=1.0, skipped_steps=0)
    return take_snapshot(model, optimizer, progress), optimizer


def test_training_continues_while_a_checkpoint_is_written(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    (tmp_path / "run").mkdir()
    weights, state = tmp_path / "run" / "w.safetensors", tmp_path / "run" / "s" / "s.safetensors"
    writer = CheckpointWriter(weights, state)
    kept = {name: value.clone() for name, value in model.student.state_dict().items()}
    made, optimizer = take_model_snapshot(model, 7)
    writer.start(made, 7)
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    assert list(writer.poll_events()) == []
    assert not weights.exists()
    with pytest.raises(AssertionError, match="two checkpoints at once"):
        writer.start(made, 8)
    slow.go_on.set()
    assert list(writer.poll_events(wait=True)) == [CheckpointEvent(step=7)]
    assert list(writer.poll_events(wait=True)) == []
    written = load_file(weights)
    assert all(torch.equal(written[f"student.{name}"], value) for name, value in kept.items())
    assert read_training_progress(state).step == 7
    load_training_state(state, model, optimizer)
    assert all(torch.equal(model.student.state_dict()[name], kept[name]) for name in kept)
    for parameter, slots in optimizer.state.items():
        assert slots["exp_avg"].stride() == parameter.stride()
    writer.close()
    assert slow.most == 1


def test_failed_writes_give_a_warning_at_the_next_check(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [ProjectError("The disk is full."), RuntimeError("the driver")]

    def refuse(*_: Any) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(background_writer, "write_snapshot", refuse)
    writer = CheckpointWriter(tmp_path / "w", tmp_path / "s")
    writer.start(take_model_snapshot(model, 3)[0], 3)
    (reported,) = writer.poll_events(wait=True)
    assert reported == WarningEvent(message="No checkpoint at step 3: The disk is full.")
    writer.start(take_model_snapshot(model, 4)[0], 4)
    with pytest.raises(RuntimeError, match="the driver"):
        list(writer.poll_events(wait=True))
    writer.close()


def test_closing_waits_for_pending_writes(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    writer = CheckpointWriter(tmp_path / "w.safetensors", tmp_path / "s" / "s.safetensors")
    writer.start(take_model_snapshot(model, 1)[0], 1)
    threading.Timer(0.2, slow.go_on.set).start()
    writer.close()
    assert load_file(tmp_path / "s" / "s.safetensors")


def test_a_checkpoint_that_does_not_fit_into_memory_gives_a_warning(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(background_writer, "write_snapshot", refuse)
    writer = CheckpointWriter(tmp_path / "weights.safetensors", tmp_path / "state.safetensors")
    writer.start(take_model_snapshot(model, 3)[0], 3)
    (event,) = writer.poll_events(wait=True)
    assert event == WarningEvent(message="No checkpoint at step 3: memory ran out.")
    writer.close()
