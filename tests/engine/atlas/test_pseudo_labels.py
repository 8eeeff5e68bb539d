"""Pseudo-labels of unlabeled scans from registered atlases."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.organ_scans import ORGAN, SHAPE, make_scan

from napari_dycon.engine.atlas.pseudo_labels import (
    MAX_ATLASES,
    PseudoLabel,
    atlases_agree,
    can_propagate_labels,
    fuse_pseudo_label,
    group_by_target,
    select_most_confident,
)
from napari_dycon.engine.atlas.registered_cases import RegistrationPair, plan_pairs
from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase


@pytest.fixture
def registration_pairs(tmp_path: Path) -> list[RegistrationPair]:
    """Three labeled scans, as they lie in one unlabeled scan: each a voxel off."""
    unlabeled = UnlabeledCase("u", tmp_path / "u.npy")
    np.save(unlabeled.image, make_scan(ORGAN, 0))
    found = []
    for axis in range(3):
        case = LabeledCase(f"l{axis}", tmp_path / f"i{axis}.npy", tmp_path / f"l{axis}.npy")
        label = np.roll(ORGAN, 1, axis)
        np.save(case.image, make_scan(label, 1 + axis).astype(np.float16))
        np.save(case.label, label)
        found.append(
            RegistrationPair(case, unlabeled, dataclasses.replace(case, id=f"l{axis}-as-u"))
        )
    return found


def never_stop() -> bool:
    return False


def write_label(pair: RegistrationPair, label: npt.NDArray[np.uint8]) -> None:
    np.save(pair.registered.label, label)


def test_atlases_find_the_organ(registration_pairs: list[RegistrationPair], tmp_path: Path) -> None:
    found = fuse_pseudo_label(registration_pairs, tmp_path / "fused.npy", never_stop)
    assert found is not None
    case = found.case
    assert case.image == registration_pairs[0].unlabeled.image
    fused = np.load(case.label)
    known = fused != 255
    assert known.mean() > 0.95
    assert (fused[known] != ORGAN[known]).sum() < 20


def test_scans_without_agreement_are_excluded(
    registration_pairs: list[RegistrationPair], tmp_path: Path
) -> None:
    for number, pair in enumerate(registration_pairs):
        write_label(pair, np.roll(ORGAN, 8 * number, 1))
    assert fuse_pseudo_label(registration_pairs, tmp_path / "fused.npy", never_stop) is None
    for pair in registration_pairs:
        write_label(pair, np.full_like(ORGAN, 255))
    assert fuse_pseudo_label(registration_pairs, tmp_path / "nothing.npy", never_stop) is None


def test_more_than_half_of_the_atlases_need_a_label(
    registration_pairs: list[RegistrationPair], tmp_path: Path
) -> None:
    for pair in registration_pairs[:2]:
        label = np.load(pair.registered.label)
        label[:10] = 255
        write_label(pair, label)
    found = fuse_pseudo_label(registration_pairs, tmp_path / "fused.npy", never_stop)
    assert found is not None
    case = found.case
    fused = np.load(case.label)
    assert (fused[:10] == 255).all()
    assert {0, 1} <= set(np.unique(fused[10:]).tolist())


def test_a_single_atlas_is_used_if_its_organ_is_visible(
    registration_pairs: list[RegistrationPair], tmp_path: Path
) -> None:
    found = fuse_pseudo_label(registration_pairs[:1], tmp_path / "fused.npy", never_stop)
    assert found is not None
    case = found.case
    fused = np.load(case.label)
    known = fused != 255
    assert (fused[known] != ORGAN[known]).sum() < 60


@pytest.mark.parametrize("brightness", [0.0, 0.1, -2.0])
def test_a_tumor_of_one_patient_is_not_propagated_to_others(
    registration_pairs: list[RegistrationPair], tmp_path: Path, brightness: float
) -> None:
    np.save(registration_pairs[0].unlabeled.image, make_scan(ORGAN, 0, brightness))
    assert fuse_pseudo_label(registration_pairs[:1], tmp_path / "fused.npy", never_stop) is None


def test_only_large_structures_are_propagated(tmp_path: Path) -> None:
    case = LabeledCase("l", tmp_path / "i.npy", tmp_path / "l.npy")
    np.save(case.image, make_scan(ORGAN, 1))
    np.save(case.label, ORGAN)
    assert can_propagate_labels([case])
    np.save(case.label, ORGAN * (np.indices(SHAPE)[0] == 10))
    assert not can_propagate_labels([case])
    assert not can_propagate_labels([])


def test_sparse_slices_count_as_a_large_structure_and_a_small_patch_does_not(
    tmp_path: Path,
) -> None:
    case = LabeledCase("l", tmp_path / "i.npy", tmp_path / "l.npy")
    np.save(case.image, make_scan(ORGAN, 1))
    sparse = np.full_like(ORGAN, 255)
    sparse[10, 8:16, 8:16] = ORGAN[10, 4:12, 4:12]
    np.save(case.label, sparse)
    assert not can_propagate_labels([case])
    sparse[::5] = ORGAN[::5]
    np.save(case.label, sparse)
    assert can_propagate_labels([case])


def test_only_a_single_atlas_requires_contrast(tmp_path: Path) -> None:
    case = LabeledCase("l", tmp_path / "i.npy", tmp_path / "l.npy")
    np.save(case.image, make_scan(ORGAN, 1, 0.0))
    np.save(case.label, ORGAN)
    assert not can_propagate_labels([case])
    assert can_propagate_labels([case, case])


def test_a_structure_within_another_has_contrast_too(
    registration_pairs: list[RegistrationPair], tmp_path: Path
) -> None:
    """A wall of six voxels and what it holds, as in a heart."""
    for pair in registration_pairs[:1]:
        shell = np.zeros(SHAPE, np.uint8)
        shell[1:-1, 1:-1, 1:-1] = 1
        shell[7:13, 7:17, 7:15] = 2
        image = make_scan(shell, 1)
        np.save(pair.registered.image, image.astype(np.float16))
        write_label(pair, shell)
        np.save(pair.unlabeled.image, image)
    found = fuse_pseudo_label(registration_pairs[:1], tmp_path / "fused.npy", never_stop)
    assert found is not None
    case = found.case
    assert {0, 1, 2} <= set(np.unique(np.load(case.label)).tolist())


def test_contradicting_atlases_do_not_agree() -> None:
    here, there = np.zeros((2, 4, 4, 4), np.uint8)
    here[:2], there[2:] = 1, 1
    assert atlases_agree([here, here, here])
    assert atlases_agree([here])
    assert not atlases_agree([here, here, there, there])
    parts = [here.copy(), here.copy(), here.copy()]
    for number, part in enumerate(parts):
        part[number] = 255  # each is annotated elsewhere
    assert atlases_agree(parts)
    odd, even = here.copy(), here.copy()
    odd[::2], even[1::2] = 255, 255
    assert atlases_agree([odd, even])  # nothing to compare


def test_the_most_confident_pseudo_labels_are_kept() -> None:
    case = LabeledCase("u", Path("i"), Path("l"))
    undecided_ratios = {3: 0.5, 7: 0.1, 11: 0.9, 15: 0.2, 19: 0.5}
    pseudo_labels = {
        number: PseudoLabel(case, undecided_ratio)
        for number, undecided_ratio in undecided_ratios.items()
    }
    assert select_most_confident(pseudo_labels) == [3, 7, 15, 19]
    assert select_most_confident({3: PseudoLabel(case, 0.5)}) == [3]
    assert select_most_confident({}) == []


def test_every_scan_is_registered_to_its_first_atlases(tmp_path: Path) -> None:
    labeled = [LabeledCase(f"l{n}", tmp_path / "i.npy", tmp_path / "l.npy") for n in range(6)]
    unlabeled = [UnlabeledCase(f"u{n}", tmp_path / "u.npy") for n in range(3)]
    np.save(tmp_path / "u.npy", make_scan(ORGAN, 0))
    config = make_config("dycon", **{"atlas.max_registration_pairs": 1000})
    groups = group_by_target(
        plan_pairs(labeled, unlabeled, config, tmp_path, MAX_ATLASES), MAX_ATLASES
    )
    assert [len(group) for group in groups] == [MAX_ATLASES] * 3
    assert all(len({pair.unlabeled.id for pair in group}) == 1 for group in groups)
    assert all(len({pair.labeled.id for pair in group}) == MAX_ATLASES for group in groups)
    few = plan_pairs(
        labeled[:3],
        unlabeled,
        make_config("dycon", **{"atlas.max_registration_pairs": 4}),
        tmp_path,
        3,
    )
    assert [len(group) for group in group_by_target(few, 3)] == [
        3
    ]  # a scan with one atlas has no pseudo-label
