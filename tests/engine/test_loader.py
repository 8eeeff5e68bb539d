"""Batches made in worker processes, as with a GPU."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import TINY

from napari_dycon import crash
from napari_dycon.engine.config import make_config
from napari_dycon.engine.dataset import TrainingData
from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.engine.loader import Batches
from napari_dycon.engine.patches import LabelledCase


def batches_of(tmp_path: Path) -> Batches:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "i.npy", rng.normal(size=(1, 20, 20, 20)).astype(np.float32))
    label = np.zeros((20, 20, 20), np.uint8)
    label[5:10, 5:10, 5:10] = 1
    np.save(tmp_path / "l.npy", label)
    config = make_config("supervised", **(TINY | {"patch": (16, 16, 16)}))
    data = TrainingData(config, class_values=(1,), channels=1, validation=[])
    data.labelled = [LabelledCase("a", tmp_path / "i.npy", tmp_path / "l.npy")]
    found = Batches(data, torch.device("cpu"))
    found._workers = 1
    return found


def test_workers_make_the_same_batches(tmp_path: Path) -> None:
    there, here = batches_of(tmp_path), batches_of(tmp_path)
    here._workers = 0
    for step in range(2):
        one, two = there.get(step, []), here.get(step, [])
        assert torch.equal(one.labelled.image, two.labelled.image)
        assert torch.equal(one.labelled.image, here.one(step, []).labelled.image)


def test_what_goes_wrong_in_a_worker_keeps_its_reason(tmp_path: Path) -> None:
    batches = batches_of(tmp_path)
    (tmp_path / "i.npy").unlink()
    with pytest.raises(FileNotFoundError) as told:
        batches.get(0, [])
    assert "i.npy" in str(told.value)
    assert "Traceback" not in str(told.value)


def test_lack_of_memory_in_a_worker_is_known_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("monai.transforms.RandAffined.__call__", refuse)
    with pytest.raises(RuntimeError) as told:
        batches_of(tmp_path).get(0, [])
    assert is_out_of_memory(told.value)
    assert "can't allocate memory" in str(told.value)
    assert "patches.py:" in crash.report(told.value)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent to one process there only")
def test_ctrl_c_ends_no_worker(tmp_path: Path) -> None:
    batches = batches_of(tmp_path)
    batches.get(0, [])
    (worker,) = batches._iterator._workers  # type: ignore[attr-defined]
    os.kill(worker.pid, signal.SIGINT)
    worker.join(timeout=0.5)
    assert worker.is_alive()
    batches.get(1, [])
