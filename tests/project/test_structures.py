"""Structures are added, renamed and deleted; labels keep copies."""

from __future__ import annotations

import multiprocessing
import os
import shutil

import numpy as np
import pytest
from project.test_removed_cases import CRASH_CODE, crash_at

from napari_dycon import io
from napari_dycon.core.cleanup import clean_project
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.errors import UserError
from napari_dycon.project.store import Project


@pytest.fixture
def two_structures(project: Project) -> Project:
    """Project whose first label also contains the structure 2, "rim"."""
    project.add_class("rim")
    label = project.labels.read("scan-0")
    label[0] = 2
    project.labels.save("scan-0", label)
    return project


def test_names_are_unique(two_structures: Project) -> None:
    project = two_structures
    for change in (
        lambda: project.add_class(" RIM"),
        lambda: project.update_class(1, name="Rim"),
    ):
        with pytest.raises(UserError, match=r'^There is already a structure called "rim"\.$'):
            change()
    project.update_class(2, name="Rim")  # its own name in other letters
    assert [info.name for info in Project.open(project.path).classes] == ["box", "Rim"]


def test_a_deleted_structure_becomes_unannotated_and_is_copied(two_structures: Project) -> None:
    project = two_structures
    before = {case: project.labels.read(case) for case in ("scan-0", "scan-1", "scan-2")}
    seen: list[tuple[int, int, str]] = []
    assert project.structures.count_labels(2) == 1
    assert project.structures.count_labels(1) == 3
    deleted = project.structures.delete(2, lambda *step: seen.append(step))
    assert seen[-1] == (3, 3, "scan-2")
    assert deleted.n_labels == 1
    assert [info.name for info in Project.open(project.path).classes] == ["box"]
    label = project.labels.read("scan-0")
    assert np.array_equal(label, np.where(before["scan-0"] == 2, UNANNOTATED, before["scan-0"]))
    assert project.get_case("scan-0").status == "in_progress"
    for case in ("scan-1", "scan-2"):
        assert np.array_equal(project.labels.read(case), before[case])
        assert project.get_case(case).status == "labeled"
    (copy,) = (deleted.folder / "labels").iterdir()
    assert np.array_equal(io.read_label(copy).array, before["scan-0"])
    project.labels.save("scan-0", label)  # still valid for the project
    with pytest.raises(UserError, match="at least one structure"):
        project.structures.delete(1)


def test_the_value_of_a_deleted_structure_is_not_used_again(two_structures: Project) -> None:
    """Old predictions and weights contain it."""
    project = two_structures
    run = project.runs.create("dycon", {})
    shape = project.read_image("scan-3").shape
    mask, zeros = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    mask[0], mask[1] = 1, 2
    project.predictions.write(run.id, "scan-3", mask, zeros, zeros)
    project.structures.delete(2)
    assert project.add_class("shell").value == 3
    assert Project.open(project.path).predictions.read(run.id, "scan-3").max() == 1


def test_labels_of_removed_cases_are_changed_too(two_structures: Project) -> None:
    project = two_structures
    project.removed_cases.remove("scan-0")
    assert project.structures.count_labels(2) == 1
    project.structures.delete(2)
    project.removed_cases.restore("scan-0")
    label = project.labels.read("scan-0")
    assert (label[0] == UNANNOTATED).all()
    project.labels.save("scan-0", label)


def test_temporary_files_beside_the_copies_are_cleaned_up(two_structures: Project) -> None:
    deleted = two_structures.structures.delete(2)
    stale = deleted.folder / "labels" / ".0123abcd.tmp.scan-0.nii.gz"
    stale.write_bytes(b"left by a crash")
    os.utime(stale, (1.0, 1.0))
    assert clean_project(two_structures.path) == [stale]
    assert len(list((deleted.folder / "labels").iterdir())) == 1


def test_a_crash_at_any_moment_keeps_the_labels(two_structures: Project) -> None:
    project = two_structures
    before = [project.labels.read(f"scan-{n}") for n in range(3)]
    saved = project.path.parent / "saved"
    shutil.copytree(project.path, saved)
    context = multiprocessing.get_context("fork")
    for number in range(200):
        process = context.Process(target=crash_at, args=(project.path, "delete", number))
        process.start()
        process.join(60)
        assert process.exitcode in (0, CRASH_CODE)
        found = Project.open(project.path)
        for case, label in enumerate(before):
            copies = found.path.glob(f"removed/structures/*/labels/scan-{case}.nii.gz")
            kept = [found.labels.read(f"scan-{case}"), *(io.read_label(p).array for p in copies)]
            assert any((voxels == label).all() for voxels in kept)
        is_deleted = len(found.classes) == 1
        assert not is_deleted or not (found.labels.read("scan-0") == 1).any()
        if not is_deleted:
            found.structures.delete(1)
            assert not (found.labels.read("scan-0") == 1).any()
            found.labels.save("scan-0", found.labels.read("scan-0"))
            assert found.get_case("scan-0").status == "in_progress"
        shutil.rmtree(project.path)
        shutil.copytree(saved, project.path)
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert number > 10
