"""Batches with and without a prefetching thread."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import TINY

from napari_dycon.core import crash_report
from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.loader import BatchLoader
from napari_dycon.engine.data.patches import Batch, PatchBatchDataset
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.engine.data.sampling import crop, voxels_by_class
from napari_dycon.engine.data.volumes import MappedVolumes, ResidentVolumes, reserve_on_device
from napari_dycon.engine.device import is_out_of_memory

CPU = torch.device("cpu")


def prepare_data(folder: Path, count: int = 1, **changes: Any) -> TrainingData:
    """A few small cases; every second scan is stored in half precision."""
    rng = np.random.default_rng(0)
    config = make_config("mean-teacher", **(TINY | changes))
    data = TrainingData(config, class_values=(1,), channels=1, validation=[])
    label = np.zeros((20, 18, 22), np.uint8)
    label[5:10, 5:10, 5:10] = 1
    for number in range(count):
        dtype = np.float16 if number % 2 else np.float32
        np.save(folder / f"i{number}.npy", rng.normal(size=(1, *label.shape)).astype(dtype))
        np.save(folder / f"l{number}.npy", label)
        case = LabeledCase(str(number), folder / f"i{number}.npy", folder / f"l{number}.npy")
        data.labeled.append(case)
        data.unlabeled.append(UnlabeledCase(f"u{number}", case.image))
    return data


def are_equal(one: Batch, two: Batch) -> bool:
    assert one.unlabeled is not None
    assert two.unlabeled is not None
    pairs = zip((*one.labeled, *one.unlabeled), (*two.labeled, *two.unlabeled), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def prefetching_loader(tmp_path: Path) -> Iterator[BatchLoader]:
    found = BatchLoader(prepare_data(tmp_path), CPU, read_ahead=2)
    yield found
    found.close()


def test_prefetched_batches_are_the_same(tmp_path: Path) -> None:
    data = prepare_data(tmp_path, 3)
    here, there = BatchLoader(data, CPU), BatchLoader(data, CPU, read_ahead=2)
    for step in (0, 1, 2, 3, 7, 8, 2):
        batch = here.get(step, data.unlabeled)
        assert are_equal(batch, there.get(step, data.unlabeled))
        assert are_equal(batch, here.load_single(step, data.unlabeled))
    assert there.get(3, []).unlabeled is None
    assert are_equal(here.get(4, data.unlabeled), there.get(4, data.unlabeled))
    assert here._reader is None  # on a CPU a thread would gain nothing
    there.close()


def test_methods_receive_float_images_and_integer_labels(tmp_path: Path) -> None:
    data = prepare_data(tmp_path, 2, **{"batch.labeled_size": 3, "batch.unlabeled_size": 2})
    for augment in (True, False):
        data.config = data.config.with_changes({"augmentation.enabled": augment})
        labeled, unlabeled = BatchLoader(data, CPU).get(0, data.unlabeled)
        assert unlabeled is not None
        assert labeled.image.shape == (3, 1, 16, 16, 16)
        assert unlabeled.image.shape == (2, 1, 16, 16, 16)
        assert labeled.label.shape == (3, 16, 16, 16)
        assert labeled.image.dtype == unlabeled.image.dtype == torch.float32
        assert labeled.label.dtype == torch.int64
        for part in (labeled, unlabeled):
            assert part.patch_center.shape == part.patch_size.shape == (len(part.image), 3)
            assert part.patch_size[0].tolist() == pytest.approx([16 / 20, 16 / 18, 16 / 22])


def test_half_precision_crops_keep_their_type(tmp_path: Path) -> None:
    data = prepare_data(tmp_path, 2)
    for case, dtype in zip(data.labeled, (torch.float32, torch.float16), strict=True):
        made = PatchBatchDataset([case], [], data.config)[0]
        assert made.labeled.image.dtype == dtype
        assert made.labeled.label is not None
        assert made.labeled.label.dtype == torch.uint8
        assert made.labeled.image.shape[2:] > (16, 16, 16)


def make_resident(data: TrainingData, device: torch.device = CPU) -> ResidentVolumes:
    images, labels = zip(*((case.image, case.label) for case in data.labeled), strict=True)
    return ResidentVolumes(images, labels, device)


def test_volumes_kept_on_a_device_give_the_same_batches(tmp_path: Path) -> None:
    data = prepare_data(
        tmp_path, 4, **{"batch.labeled_size": 3, "augmentation.flip_left_right": True}
    )
    kept = make_resident(data)
    while not kept.is_complete:
        kept.load_next()
    made = [
        PatchBatchDataset(data.labeled, data.unlabeled, data.config, volumes=volumes)
        for volumes in (MappedVolumes(), kept)
    ]
    for step in range(5):
        one, two = (batches[step].augment(CPU) for batches in made)
        assert are_equal(one, two)
    for path in tmp_path.glob("i*.npy"):  # none is read again
        path.unlink()
    made[1][0].augment(CPU)


def test_a_run_switches_to_volumes_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare_data(tmp_path, 3)
    monkeypatch.setattr(
        "napari_dycon.engine.data.loader.reserve_on_device",
        lambda images, labels, device: ResidentVolumes(images, labels, device),
    )
    here, there = BatchLoader(data, CPU), BatchLoader(data, CPU, read_ahead=2)
    for step in range(30):
        batch = there.get(step, data.unlabeled)
        assert are_equal(batch, here.get(step, data.unlabeled))
        assert isinstance(there._volumes, MappedVolumes) or step >= 10  # 6 files, one a step
    assert isinstance(there._volumes, ResidentVolumes)
    assert isinstance(here._volumes, MappedVolumes)
    there.close()


def test_volumes_that_cannot_be_moved_stay_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: ResidentVolumes) -> None:
        raise RuntimeError("CUDA error: out of memory")

    data = prepare_data(tmp_path, 3)
    monkeypatch.setattr(ResidentVolumes, "load_next", refuse)
    monkeypatch.setattr("napari_dycon.engine.data.loader.reserve_on_device", ResidentVolumes)
    here, there = BatchLoader(data, CPU), BatchLoader(data, CPU, read_ahead=2)
    for step in range(20):
        assert are_equal(there.get(step, data.unlabeled), here.get(step, data.unlabeled))
    assert isinstance(there._volumes, MappedVolumes)
    there.close()


def test_volumes_are_kept_on_a_device_with_memory_to_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [case.image for case in prepare_data(tmp_path, 2).labeled]
    size = sum(path.stat().st_size for path in paths)
    assert reserve_on_device(paths, [], CPU) is None
    made: list[Any] = []
    free, peak = 10 * size, 0
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (free, 2 * free))
    monkeypatch.setattr("torch.cuda.max_memory_reserved", lambda _: peak)
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda _: 0)
    monkeypatch.setattr(
        "napari_dycon.engine.data.volumes.ResidentVolumes", lambda *a: made.append(a)
    )
    device = torch.device("cuda")
    reserve_on_device(paths, [], device)
    assert len(made) == 1
    peak = 9 * size  # which training will take again
    assert reserve_on_device(paths, [], device) is None
    free, peak = 2 * size, 0
    assert reserve_on_device(paths, [], device) is None
    assert len(made) == 1

    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    free = 10 * size
    monkeypatch.setattr("napari_dycon.engine.data.volumes.ResidentVolumes", refuse)
    assert reserve_on_device(paths, [], device) is None


def test_crops_repeat_the_image_border_and_are_unannotated_outside() -> None:
    image = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    for center in ((1, 2, 2), (0, 0, 0), (2, 3, 4), (1, 0, 4)):
        out = np.zeros((2, 6, 4, 7), np.float32)
        crop(image, center, out, fill=None)
        places = [
            np.clip(np.arange(s) + c - s // 2, 0, n - 1)
            for c, s, n in zip(center, out.shape[1:], image.shape[1:], strict=True)
        ]
        assert np.array_equal(out, image[(slice(None), *np.ix_(*places))])
        tensor = torch.zeros(out.shape)
        crop(torch.from_numpy(image), center, tensor, fill=None)
        assert np.array_equal(out, tensor.numpy())
        crop(image, center, out, fill=255)
        inside = [
            (np.arange(s) + c - s // 2 >= 0) & (np.arange(s) + c - s // 2 < n)
            for c, s, n in zip(center, out.shape[1:], image.shape[1:], strict=True)
        ]
        part = out[(slice(None), *np.ix_(*inside))]
        assert out.sum() - part.sum() == 255 * (out.size - part.size)


def test_voxels_of_each_class_are_found() -> None:
    label = np.zeros((30, 30, 30), np.uint8)
    label[2:4, 3, 3] = 1
    label[10:25, 10:25, 10:25] = 3
    found = dict(voxels_by_class(label, max_voxels=500))
    assert set(found) == {1, 3}
    assert found[1].tolist() == [[2, 3, 3], [3, 3, 3]]
    assert len(found[3]) == 250  # of many labels not all voxels can be kept
    assert (label[tuple(found[3].T)] == 3).all()
    assert voxels_by_class(np.zeros((3, 3, 3), np.uint8)) == []
    label[label == 0] = 255
    assert set(dict(voxels_by_class(label))) == {1, 3}
    label[0, 0, 5:7] = 0
    assert dict(voxels_by_class(label))[-1].tolist() == [[0, 0, 5], [0, 0, 6]]


def test_errors_while_prefetching_keep_their_cause(
    prefetching_loader: BatchLoader, tmp_path: Path
) -> None:
    (tmp_path / "i0.npy").unlink()
    with pytest.raises(FileNotFoundError) as reported:
        prefetching_loader.get(0, [])
    assert "i0.npy" in str(reported.value)
    assert "patches.py:" in crash_report.format_report(reported.value)


def test_lack_of_memory_while_prefetching_is_recognized(
    prefetching_loader: BatchLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("napari_dycon.engine.data.patches.augment_patches", refuse)
    with pytest.raises(RuntimeError) as reported:
        prefetching_loader.get(0, [])
    assert is_out_of_memory(reported.value)
    assert "patches.py:" in crash_report.format_report(reported.value)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent to one process there only")
def test_ctrl_c_reaches_only_the_main_process(prefetching_loader: BatchLoader) -> None:
    prefetching_loader.get(0, [])
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come a moment later
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    prefetching_loader.get(1, [])
    prefetching_loader.close()
