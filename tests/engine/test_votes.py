"""Unlabelled scans that learn from labels deformed into them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny_runs import TINY

from napari_dycon.engine.borrow import borrow
from napari_dycon.engine.config import make_config
from napari_dycon.engine.dataset import TrainingData
from napari_dycon.engine.patches import LabelledCase, UnlabelledCase
from napari_dycon.engine.votes import VOTERS, alike, can_vote, vote, voters_of
from napari_dycon.engine.warps import Pair, plan_warps
from napari_dycon.project.store import Project

SHAPE = (20, 24, 22)
ORGAN = np.zeros(SHAPE, np.uint8)
ORGAN[5:15, 6:18, 5:17] = 1


def scan(
    organ: npt.NDArray[np.uint8], seed: int, brightness: float = 2.0
) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(0.0, 0.3, SHAPE)
    return (organ * brightness + noise).astype(np.float32)[None]


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Three labelled scans, as they lie in one unlabelled scan: each a voxel off."""
    unlabelled = UnlabelledCase("u", tmp_path / "u.npy")
    np.save(unlabelled.image, scan(ORGAN, 0))
    found = []
    for axis in range(3):
        case = LabelledCase(f"l{axis}", tmp_path / f"i{axis}.npy", tmp_path / f"l{axis}.npy")
        label = np.roll(ORGAN, 1, axis)
        np.save(case.image, scan(label, 1 + axis).astype(np.float16))
        np.save(case.label, label)
        found.append(Pair(case, unlabelled, dataclasses.replace(case, id=f"l{axis}-as-u")))
    return found


def write_label(pair: Pair, label: npt.NDArray[np.uint8]) -> None:
    np.save(pair.warped.label, label)


def test_voters_find_the_organ_where_it_is(pairs: list[Pair], tmp_path: Path) -> None:
    case = vote(pairs, tmp_path / "voted.npy")
    assert case is not None
    assert case.image == pairs[0].unlabelled.image
    voted = np.load(case.label)
    known = voted != 255
    assert known.mean() > 0.95
    assert (voted[known] != ORGAN[known]).sum() < 20


def test_a_vote_is_taken_once(pairs: list[Pair], tmp_path: Path) -> None:
    first = vote(pairs, tmp_path / "voted.npy")
    for pair in pairs:
        pair.warped.image.unlink()
        pair.warped.label.unlink()
    assert vote(pairs, tmp_path / "voted.npy") == first


def test_scans_on_which_nobody_agrees_are_left_out(pairs: list[Pair], tmp_path: Path) -> None:
    for number, pair in enumerate(pairs):
        write_label(pair, np.roll(ORGAN, 8 * number, 1))
    assert vote(pairs, tmp_path / "voted.npy") is None
    for pair in pairs:
        write_label(pair, np.full_like(ORGAN, 255))
    assert vote(pairs, tmp_path / "nothing.npy") is None


def test_more_than_half_of_the_voters_need_a_label(pairs: list[Pair], tmp_path: Path) -> None:
    for pair in pairs[:2]:
        label = np.load(pair.warped.label)
        label[:10] = 255
        write_label(pair, label)
    case = vote(pairs, tmp_path / "voted.npy")
    assert case is not None
    voted = np.load(case.label)
    assert (voted[:10] == 255).all()
    assert {0, 1} <= set(np.unique(voted[10:]).tolist())


def test_a_single_voter_is_heard_where_its_organ_is_seen(pairs: list[Pair], tmp_path: Path) -> None:
    case = vote(pairs[:1], tmp_path / "voted.npy")
    assert case is not None
    voted = np.load(case.label)
    known = voted != 255
    assert (voted[known] != ORGAN[known]).sum() < 60


@pytest.mark.parametrize("brightness", [0.0, 0.1, -2.0])
def test_a_tumour_of_one_person_is_not_voted_into_others(
    pairs: list[Pair], tmp_path: Path, brightness: float
) -> None:
    np.save(pairs[0].unlabelled.image, scan(ORGAN, 0, brightness))
    assert vote(pairs[:1], tmp_path / "voted.npy") is None


def test_a_single_voter_whose_organ_does_not_stand_out_is_not_heard(
    pairs: list[Pair], tmp_path: Path
) -> None:
    np.save(pairs[0].warped.image, scan(ORGAN, 1, 0.0))
    assert vote(pairs[:1], tmp_path / "voted.npy") is None


def test_only_large_structures_are_voted_on(tmp_path: Path) -> None:
    case = LabelledCase("l", tmp_path / "i.npy", tmp_path / "l.npy")
    np.save(case.label, ORGAN)
    assert can_vote([case])
    np.save(case.label, ORGAN * (np.indices(SHAPE)[0] == 10))
    assert not can_vote([case])
    assert not can_vote([])


def test_voters_of_two_minds_are_not_alike() -> None:
    here, there = np.zeros((2, 4, 4, 4), np.uint8)
    here[:2], there[2:] = 1, 1
    assert alike([here, here, here])
    assert alike([here])
    assert not alike([here, here, there, there])
    parts = [here.copy(), here.copy(), here.copy()]
    for number, part in enumerate(parts):
        part[number] = 255  # each is annotated elsewhere
    assert alike(parts)


def test_every_scan_has_its_first_voters(tmp_path: Path) -> None:
    labelled = [LabelledCase(f"l{n}", tmp_path / "i.npy", tmp_path / "l.npy") for n in range(6)]
    unlabelled = [UnlabelledCase(f"u{n}", tmp_path / "u.npy") for n in range(3)]
    np.save(tmp_path / "u.npy", scan(ORGAN, 0))
    config = make_config("dycon", warps=1000)
    groups = voters_of(plan_warps(labelled, unlabelled, config, tmp_path, VOTERS))
    assert [len(group) for group in groups] == [VOTERS] * 3
    assert all(len({pair.unlabelled.id for pair in group}) == 1 for group in groups)
    assert all(len({pair.labelled.id for pair in group}) == VOTERS for group in groups)


def test_votes_are_only_used_where_the_structure_is_large(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_dycon.engine.votes.LEAST_CELLS", 400)
    device = torch.device("cpu")
    data = TrainingData(make_config("dycon", **(TINY | {"warps": 9, "warp_share": 0.5})), (1,), 1)
    for case in project.cases:
        image = project.cache_folder / f"{case.id}.npy"
        image.parent.mkdir(exist_ok=True)
        np.save(image, project.read_image(case.id).array[None].astype(np.float32))
        label = project.read_label(case.id)
        if label is None:
            data.unlabelled.append(UnlabelledCase(case.id, image))
        else:
            np.save(image.with_suffix(".label.npy"), label)
            data.labelled.append(LabelledCase(case.id, image, image.with_suffix(".label.npy")))
    folder = project.path / "borrowed"
    list(borrow(data, folder, device, resumed=False, enough=lambda: False))
    assert (len(data.warped), len(data.voted)) == (9, 3)
    list(borrow(data, folder, device, resumed=False, enough=lambda: True))
    assert (len(data.warped), len(data.voted)) == (1, 0)  # no time for more
    assert not list(borrow(data, folder, device, resumed=True, enough=lambda: False))
    assert len(data.warped) == 1  # a run goes on with what it began with
    for labelled in data.labelled:
        np.save(labelled.label, np.load(labelled.label) * (np.indices((18, 22, 20))[0] == 10))
    list(borrow(data, folder, device, resumed=False, enough=lambda: False))
    assert (len(data.warped), len(data.voted)) == (3, 0)  # without votes fewer: 9 x 0.5 / sqrt(3)
