"""The training set with pseudo-labels: files, resumed runs, failures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.organ_scans import ORGAN, SHAPE, make_scan
from helpers.tiny_runs import TINY

from napari_dycon.engine.atlas import training_set
from napari_dycon.engine.atlas.pseudo_labels import (
    PseudoLabel,
)
from napari_dycon.engine.atlas.training_set import build_atlas_training_set
from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.preparation import TrainingData
from napari_dycon.errors import ProjectError
from napari_dycon.project.runs.events import Event
from napari_dycon.project.store import Project


@pytest.fixture
def training_data(tmp_path: Path) -> TrainingData:
    """One labeled scan and three others in which its organ is elsewhere."""
    found = TrainingData(
        make_config("dycon", **(TINY | {"atlas.max_registration_pairs": 9})), (1,), 1
    )
    for number, move in enumerate(((0, 0), (2, 1), (-2, 2), (1, -3))):
        organ = np.roll(ORGAN, move, (1, 2))
        image = tmp_path / f"{number}.npy"
        np.save(image, make_scan(organ, number))
        if number:
            found.unlabeled.append(UnlabeledCase(f"u{number}", image))
        else:
            np.save(tmp_path / "label.npy", organ)
            found.labeled.append(LabeledCase("l", image, tmp_path / "label.npy"))
    return found


def add_pseudo_labels(
    data: TrainingData, folder: Path, *, resumed: bool = False, most: int = 99
) -> list[Event]:
    """Build the training set with time for some pairs."""
    events: list[Event] = []
    for event in build_atlas_training_set(
        data,
        folder,
        torch.device("cpu"),
        is_resumed=resumed,
        should_stop=lambda: len(events) >= most,
    ):
        events.append(event)
    return events


def read_pseudo_labels(data: TrainingData) -> dict[str, bytes]:
    return {
        c.id: c.label.read_bytes() for c in (*data.registered_cases, *data.pseudo_labeled_cases)
    }


def test_a_scan_without_a_structure_is_not_registered(
    training_data: TrainingData, tmp_path: Path
) -> None:
    image, label = tmp_path / "empty.npy", tmp_path / "empty-label.npy"
    np.save(image, make_scan(np.zeros_like(ORGAN), 9))
    np.save(label, np.zeros_like(ORGAN))
    training_data.labeled.append(LabeledCase("empty", image, label))
    add_pseudo_labels(training_data, tmp_path / "registered")
    assert {case.id for case in training_data.registered_cases} == {f"l-as-u{n}" for n in (1, 2, 3)}
    assert len(training_data.pseudo_labeled_cases) == 3


def test_one_labeled_scan_is_enough_for_pseudo_labels(
    training_data: TrainingData, tmp_path: Path
) -> None:
    add_pseudo_labels(training_data, tmp_path / "registered")
    assert (len(training_data.registered_cases), len(training_data.pseudo_labeled_cases)) == (3, 3)
    moves = {"u1-pseudo": (2, 1), "u2-pseudo": (-2, 2), "u3-pseudo": (1, -3)}
    for case in training_data.pseudo_labeled_cases:
        fused, organ = np.load(case.label), np.roll(ORGAN, moves[case.id], (1, 2))
        known = fused != 255
        assert (fused[known] != organ[known]).mean() < 0.02


@pytest.mark.parametrize("kept", [True, False])
def test_a_resumed_run_has_the_same_pseudo_labels(
    training_data: TrainingData, tmp_path: Path, kept: bool
) -> None:
    folder = tmp_path / "registered"
    add_pseudo_labels(training_data, folder, most=2)
    first = read_pseudo_labels(training_data)
    assert (len(training_data.registered_cases), len(training_data.pseudo_labeled_cases)) == (2, 2)
    if not kept:
        shutil.rmtree(folder)
    events = add_pseudo_labels(training_data, folder, resumed=True)
    assert bool(events) is not kept
    assert read_pseudo_labels(training_data) == first


@pytest.mark.parametrize(
    "error", [ProjectError("full"), MemoryError(), RuntimeError("out of memory")]
)
def test_a_run_resumes_identically_after_a_failed_fusion(
    training_data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder = tmp_path / "registered"
    real, calls = training_set.fuse_pseudo_label, []  # type: ignore[attr-defined]

    def second_fails(*arguments: Any) -> PseudoLabel | None:
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        return real(*arguments)

    monkeypatch.setattr(training_set, "fuse_pseudo_label", second_fails)
    add_pseudo_labels(training_data, folder)
    first = read_pseudo_labels(training_data)
    full = isinstance(error, ProjectError)
    assert (len(training_data.registered_cases), len(training_data.pseudo_labeled_cases)) == (
        (2, 1) if full else (3, 2)
    )
    add_pseudo_labels(training_data, folder, resumed=True)
    assert read_pseudo_labels(training_data) == first
    assert len(calls) == (2 if full else 3)


def test_files_that_do_not_fit_are_regenerated(training_data: TrainingData, tmp_path: Path) -> None:
    folder = tmp_path / "registered"
    add_pseudo_labels(training_data, folder)
    first = read_pseudo_labels(training_data)
    fused = training_data.pseudo_labeled_cases[0].label
    for unfit in (np.full(SHAPE, 77, np.uint8), np.zeros((3, 3, 3), np.uint8)):
        np.save(fused, unfit)
        assert add_pseudo_labels(training_data, folder, resumed=True)
        assert read_pseudo_labels(training_data) == first
    fused.unlink()
    add_pseudo_labels(training_data, folder, resumed=True)
    assert read_pseudo_labels(training_data) == first
    folder.with_suffix(".json").write_text('{"registered": 2, "pseudo_labeled": ["x", 1.5, -1, 7]}')
    add_pseudo_labels(training_data, folder, resumed=True)
    assert (len(training_data.registered_cases), len(training_data.pseudo_labeled_cases)) == (2, 0)


def test_pseudo_labels_are_used_for_large_structures_only(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_dycon.engine.atlas.pseudo_labels.MIN_STRUCTURE_VOXELS", 400)
    device = torch.device("cpu")
    data = TrainingData(
        make_config(
            "dycon",
            **(
                TINY
                | {
                    "atlas.max_registration_pairs": 9,
                    "atlas.registration_augmentation_fraction": 0.5,
                }
            ),
        ),
        (1,),
        1,
    )
    for case in project.cases:
        image = project.cache_folder / f"{case.id}.npy"
        image.parent.mkdir(exist_ok=True)
        np.save(image, project.read_image(case.id).array[None].astype(np.float32))
        label = project.labels.read(case.id)
        if label is None:
            data.unlabeled.append(UnlabeledCase(case.id, image))
        else:
            np.save(image.with_suffix(".label.npy"), label)
            data.labeled.append(LabeledCase(case.id, image, image.with_suffix(".label.npy")))
    folder = project.path / "registered"
    list(
        build_atlas_training_set(data, folder, device, is_resumed=False, should_stop=lambda: False)
    )
    assert (len(data.registered_cases), len(data.pseudo_labeled_cases)) == (9, 2)
    for stops_at in (0, 1):
        list(
            build_atlas_training_set(
                data, folder, device, is_resumed=False,
                should_stop=lambda n=stops_at: len(data.registered_cases) >= n,
            )
        )  # fmt: skip
        found = len(data.registered_cases), len(data.pseudo_labeled_cases)
        assert found == (stops_at, 0)  # a run that is stopped registers nothing more
        data.registered_cases = []
        assert not list(
            build_atlas_training_set(
                data, folder, device, is_resumed=True, should_stop=lambda: False
            )
        )
        assert len(data.registered_cases) == stops_at  # it continues with what it began with
    for labeled in data.labeled:
        np.save(labeled.label, np.load(labeled.label) * (np.indices((18, 22, 20))[0] == 10))
    list(
        build_atlas_training_set(data, folder, device, is_resumed=False, should_stop=lambda: False)
    )
    assert (len(data.registered_cases), len(data.pseudo_labeled_cases)) == (
        3,
        0,
    )  # fewer without pseudo-labels: 9 x 0.5 / sqrt(3)
