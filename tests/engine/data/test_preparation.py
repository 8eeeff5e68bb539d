"""Training data: no label leakage, one plan for all methods, batches by seed and step."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.generators import get_result
from helpers.nifti_files import save_nifti
from helpers.tiny_runs import TINY

from napari_dycon import io
from napari_dycon.engine.config import (
    METHODS,
    TrainConfig,
    make_config,
)
from napari_dycon.engine.data import preparation
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.patches import PatchBatchDataset, UnlabeledBatch
from napari_dycon.engine.data.preparation import prepare_training_data
from napari_dycon.engine.data.splits import split_cases
from napari_dycon.engine.training.run import train
from napari_dycon.errors import DyconError
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project


def make_tiny_config(method: str = "dycon", **changes: Any) -> TrainConfig:
    return make_config(method, **(TINY | changes))


def test_labels_of_unlabeled_cases_are_never_read(project: Project) -> None:
    """Poison on the disk where a label of an unlabeled case could be found."""
    (project.path / "labels" / "scan-5.nii.gz").write_bytes(b"no label at all")
    assert "scan-5" in [case.id for case in project.unlabeled_cases()]
    events = list(train(project, make_tiny_config()))
    assert events[-1].event == "finished"


@pytest.mark.parametrize("method", [m for m in METHODS if m != "supervised"])
def test_no_label_of_an_unlabeled_case_is_even_opened(project: Project, method: str) -> None:
    """Every file that Python opens is noted by an audit hook."""
    truth = np.zeros(project.read_image("scan-5").shape, np.uint8)
    io.write_mask(
        truth,
        reference=project.read_image("scan-5"),
        path=project.path / "labels" / "scan-5.nii.gz",
    )
    opened: list[str] = []
    watching = [True]

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and watching[0]:
            opened.append(str(arguments[0]))

    sys.addaudithook(note)  # cannot be taken out again, only silenced
    try:
        changes = {"atlas.max_registration_pairs": 9} if method == "dycon" else {}
        events = list(train(project, make_tiny_config(method, **changes)))
    finally:
        watching[0] = False
    assert events[-1].event == "finished"
    assert any("scan-5" in name for name in opened)  # its image was learned from
    labels = [name for name in opened if "labels" in Path(name).parts]
    assert any("scan-0" in name for name in labels)
    assert not any("scan-5" in name for name in labels)


def test_an_unlabeled_batch_has_no_label() -> None:
    assert UnlabeledBatch._fields == ("image", "patch_center", "patch_size")
    assert set(UnlabeledCase.__dataclass_fields__) == {"id", "image"}


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "i.npy", rng.normal(size=(1, 20, 12, 20)).astype(np.float32))
    label = np.full((20, 12, 20), 255, np.uint8)
    label[10] = 0
    label[10, 4:8, 8:12] = 1
    np.save(tmp_path / "l.npy", label)
    case = LabeledCase("a", tmp_path / "i.npy", tmp_path / "l.npy")
    scan = UnlabeledCase("b", tmp_path / "i.npy")
    batches = [PatchBatchDataset([case], [scan], make_tiny_config()) for _ in range(2)]
    list(map(batches[0].__getitem__, range(3)))
    cpu = torch.device("cpu")
    one, two = (each[7].augment(cpu) for each in batches)
    for a, b in zip(one.labeled, two.labeled, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(one.unlabeled.image, two.unlabeled.image)
    assert not torch.equal(one.labeled.image, batches[0][8].augment(cpu).labeled.image)
    # Sparse labels: every patch holds something to learn from.
    labels = [batches[0][step].augment(cpu).labeled.label for step in range(20)]
    assert all((label != 255).any() for label in labels)


def test_all_methods_get_the_same_plan(tmp_path: Path) -> None:
    """A baseline with another patch would be another network's race."""
    rng = np.random.default_rng(0)
    for number in range(5):  # unlabeled scans are larger, of other voxels and brighter
        size = (20, 20, 20) if number == 0 else (30, 24, 40)
        affine = np.diag([1.0, 1.0, 1.0 if number == 0 else 1.4, 1.0])
        image = rng.normal(-500 if number == 0 else 300, 200, size).astype(np.float32)
        save_nifti(tmp_path / "i" / f"{number}.nii.gz", image, affine)
    label = np.zeros((20, 20, 20), np.uint8)
    label[5:9, 5:9, 5:9] = 1
    save_nifti(tmp_path / "l" / "0.nii.gz", label, np.eye(4))
    project = create_project(tmp_path / "p", tmp_path / "i", tmp_path / "l", ["box"])
    plans = []
    for name, changes in [*((m, {}) for m in METHODS), ("dycon", {"batch.unlabeled_size": 0})]:
        config = make_tiny_config(
            name, **({"batch.patch_size": None, "network.filters": None} | changes)
        )
        state = tmp_path / f"state-{len(plans)}"
        state.mkdir()
        found = split_cases(project, config)
        data = get_result(prepare_training_data(project, config, "cpu", state / "s", found, False))
        c = data.config
        plans.append(
            (
                c.preprocessing.spacing,
                c.batch.patch_size,
                c.preprocessing.normalization,
                c.preprocessing.intensity_window,
                c.network.filters,
                c.network.half_resolution,
            )
        )
    assert len(set(plans)) == 1
    assert plans[0][0] == (1.4, 1.0, 1.0)
    assert plans[0][2] == "zscore"  # most scans are no CT


def test_a_scan_that_is_not_needed_may_be_unreadable(project: Project) -> None:
    for path in project.image_paths("scan-4"):
        path.write_bytes(b"gone")
    assert list(train(project, make_tiny_config("supervised", steps=1)))[-1].event == "finished"
    with pytest.raises(DyconError, match="scan-4"):
        list(train(project, make_tiny_config("dycon", steps=1)))


def test_scan_descriptions_are_computed_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    usual = Project.read_image
    monkeypatch.setattr(Project, "read_image", lambda s, c: read.append(c) or usual(s, c))
    config = make_tiny_config("supervised", steps=1, **{"batch.patch_size": None})
    list(train(project, config))
    first = project.runs.get().read_config()
    assert set(read) == {f"scan-{n}" for n in range(6)}
    read.clear()
    list(train(project, config))
    assert read == ["scan-0", "scan-1", "scan-2"]  # for the labels' grids
    assert project.runs.get().read_config() == first
    # What lies there may be damaged, or made to mislead.
    kept = sorted(project.cache_folder.glob("*.json"))
    for path, text in zip(
        kept, ["", "[]", '{"shape": [1, 2]}', '{"shape": [-1, 2, 3]}', "{}", "null"], strict=True
    ):
        path.write_text(text)
    list(train(project, config))
    assert project.runs.get().read_config() == first


def test_preparation_emits_events_during_a_slow_scan(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = preparation.prepare_image  # type: ignore[attr-defined]

    def slow(*arguments: Any) -> Any:
        time.sleep(0.5)
        return usual(*arguments)

    monkeypatch.setattr(preparation, "prepare_image", slow)
    monkeypatch.setattr(preparation, "HEARTBEAT_S", 0.1)
    events = list(train(project, make_tiny_config("supervised", steps=1)))
    done = [e.done for e in events if e.event == "preparing"]
    assert done == sorted(done)
    assert all(done.count(number) >= 3 for number in range(3))
    assert done[-1] == 3
    assert {e.total for e in events if e.event == "preparing"} == {3}


def test_labeling_another_case_does_not_change_the_scans_used_for_planning(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_dycon.engine.data.preparation.MAX_FINGERPRINTS", 2)
    looked: list[str] = []

    def note(project: Project, case: str) -> object:
        looked.append(case)
        return real(project, case)

    real = preparation._load_fingerprint
    monkeypatch.setattr("napari_dycon.engine.data.preparation._load_fingerprint", note)
    list(train(project, make_tiny_config("supervised", steps=1)))
    before = looked.copy()
    label = np.zeros(project.read_image("scan-5").shape, np.uint8)
    label[2:5, 2:5, 2:5] = 1
    project.labels.save("scan-5", label)
    looked.clear()
    list(train(project, make_tiny_config("supervised", steps=1)))
    assert looked == before == ["scan-0", "scan-5"]
