"""Adding cases to a project is atomic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.folder_trees import read_tree
from helpers.nifti_files import save_nifti

from napari_dycon import io
from napari_dycon.errors import BusyError, GeometryError, LabelError, ProjectError, UserError
from napari_dycon.io.volume import from_canonical
from napari_dycon.project import manifest
from napari_dycon.project.store import Project

SHAPE = (20, 22, 18)


def save_scan(path: Path, seed: int = 0) -> Path:
    return save_nifti(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def test_cases_are_added_atomically(project: Project, tmp_path: Path) -> None:
    before = read_tree(project.path)
    good = save_scan(tmp_path / "more" / "good.nii.gz")
    label = save_nifti(tmp_path / "drawn.nii.gz", np.full(SHAPE, 7, np.uint8))
    bad = tmp_path / "more" / "bad.nii.gz"
    bad.write_text("no scan")
    with pytest.raises(UserError, match=r"bad\.nii\.gz cannot be read"):
        project.add_cases([good, bad])
    with pytest.raises(LabelError, match=r"drawn\.nii\.gz contains the unknown class 7"):
        project.add_cases([good], labels={"good": label})
    assert read_tree(project.path) == before
    seen: list[tuple[int, int, str]] = []
    other = save_scan(tmp_path / "other" / "good.nii.gz")
    added = project.add_cases([good, other], progress=lambda *step: seen.append(step))
    assert [c.id for c in added] == ["good", "good-2"]
    assert seen == [(1, 2, "good"), (2, 2, "good-2")]
    assert Project.open(project.path).get_case("good-2").status == "unlabeled"


def test_a_label_that_cannot_be_written_adds_no_case(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_tree(project.path)
    files = [save_scan(tmp_path / "more" / f"{n}.nii.gz") for n in "ab"]
    labels = {n: save_nifti(tmp_path / f"{n}.nii.gz", np.ones(SHAPE, np.uint8)) for n in "ab"}
    write = io.write_mask

    def full(mask: np.ndarray, *, reference: object, path: Path) -> None:
        if path.name == "b.nii.gz":
            raise ProjectError("the disk is full")
        write(mask, reference=reference, path=path)

    monkeypatch.setattr(io, "write_mask", full)
    with pytest.raises(ProjectError, match="disk is full"):
        project.add_cases(files, labels=labels)
    assert read_tree(project.path) == before


def test_the_label_of_an_added_case_survives_later_errors(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = manifest.edit_manifest

    def then_interrupted(*arguments: Any) -> None:
        changed(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "edit_manifest", then_interrupted)
    label = save_nifti(tmp_path / "a.nii.gz", np.ones(SHAPE, np.uint8))
    with pytest.raises(KeyboardInterrupt):
        project.add_cases([save_scan(tmp_path / "more" / "a.nii.gz")], labels={"a": label})
    again = Project.open(project.path)
    assert again.get_case("a").status == "labeled"
    assert again.labels.read("a").all()


def test_channels_on_other_grids_are_resampled_or_refused(tmp_path: Path) -> None:
    flair, t1 = save_scan(tmp_path / "flair.nii.gz"), save_scan(tmp_path / "t1.nii.gz", 1)
    project = Project.create(tmp_path / "p", channels=("flair", "t1"))
    affine = io.read_volume(flair).source.affine.copy()
    affine[:3, 3] += 500
    away = save_nifti(tmp_path / "away.nii.gz", np.random.default_rng(0).random(SHAPE), affine)
    with pytest.raises(GeometryError, match="does not overlap with the first channel"):
        project.add_cases([[flair, away]])
    with pytest.raises(UserError, match=r"flair has 1 channel.*has 2: flair, t1"):
        project.add_cases([flair])
    project.add_cases([[flair, t1]])
    volume = project.read_image("flair")
    assert volume.channels == 2
    assert volume.array.shape == (2, *volume.shape)
    assert np.array_equal(volume.array[1], io.read_volume(t1).array)
    # A ramp on half the grid is the same ramp on the whole one.
    source = io.read_volume(flair).source
    ramp = np.add.outer(np.add.outer(np.arange(12.0), 2 * np.arange(12.0)), 3 * np.arange(12.0))
    fine = np.diag([0.5, 0.5, 0.5, 1.0])
    fine[:3, 3] = -0.25
    save_nifti(t1, ramp, source.affine @ fine)
    volume = project.read_image("flair")
    assert "Channel 2 of flair was resampled" in volume.notes[0]
    whole = from_canonical(volume.array[1], source)
    assert np.allclose(np.diff(whole[:5, :5, :5], axis=0), 2.0, atol=1e-4)
    assert np.allclose(whole[1, 1, 1], ramp[2, 2, 2] + 0.5 * (1 + 2 + 3), atol=1e-3)


def test_scans_are_never_modified(project: Project, scans: Path) -> None:
    before = read_tree(scans)
    shape = project.read_image("scan-4").shape
    project.labels.save("scan-4", np.ones(shape, np.uint8))
    run = project.runs.create("dycon", {})
    flat = np.zeros(shape, np.float32)
    project.predictions.write(run.id, "scan-4", np.zeros(shape, np.uint8), flat, flat)
    assert read_tree(scans) == before


def test_concurrent_adding_is_reported(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Project.open(project.path)
    one = save_nifti(tmp_path / "1.nii.gz", np.ones(SHAPE, np.uint8))
    none = save_nifti(tmp_path / "0.nii.gz", np.zeros(SHAPE, np.uint8))
    file = save_scan(tmp_path / "new.nii.gz")

    def meanwhile(*_: object) -> None:
        project.add_cases([file], labels={"new": one})

    with pytest.raises(BusyError, match="added new at the same time"):
        other.add_cases([file], labels={"new": none}, progress=meanwhile)
    assert project.labels.read("new").all()
    assert [c.id for c in Project.open(project.path).cases].count("new") == 1
