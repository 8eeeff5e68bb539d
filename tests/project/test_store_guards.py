"""What a project folder withstands: other windows, full disks, hostile names, failed starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

from napari_dycon import io
from napari_dycon.core import locks
from napari_dycon.errors import BusyError, GeometryError, LabelError, ProjectError, UserError
from napari_dycon.io.volume import from_canonical
from napari_dycon.project import manifest
from napari_dycon.project.case_ids import is_case_id, unique_case_id
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.models import Case, ClassInfo
from napari_dycon.project.store import Project

SHAPE = (20, 22, 18)


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for the lock."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def scan(path: Path, seed: int = 0) -> Path:
    return save_nifti(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


# ---- Adding beside what is there -------------------------------------------------------------


def test_a_label_of_no_case_is_neither_replaced_nor_taken(project: Project, tmp_path: Path) -> None:
    stray = project.path / "labels" / "New.nii.gz"
    stray.write_bytes(b"drawn by somebody")
    label = save_nifti(tmp_path / "l.nii.gz", np.ones(SHAPE, np.uint8))
    (added,) = project.add_cases([scan(tmp_path / "new.nii.gz")], labels={"new": label})
    assert added.id == "new-2"
    assert project.labels.path("new-2").exists()
    assert stray.read_bytes() == b"drawn by somebody"


def test_a_label_that_appears_meanwhile_stays(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = save_nifti(tmp_path / "l.nii.gz", np.ones(SHAPE, np.uint8))
    file = project.path / "labels" / "new.nii.gz"
    with pytest.raises(BusyError, match="was created at the same time"):
        project.add_cases(
            [scan(tmp_path / "new.nii.gz")],
            labels={"new": label},
            progress=lambda *_: (file.write_bytes(b"x"), None)[1],
        )
    assert file.read_bytes() == b"x"
    assert "new" not in {case.id for case in Project.open(project.path).cases}


def test_nothing_is_read_for_a_project_that_is_only_shown(project: Project, tmp_path: Path) -> None:
    shown = Project.open(project.path, read_only_reason="somebody works on it")
    with pytest.raises(ProjectError, match="somebody works on it"):
        shown.add_cases([tmp_path / "not there.nii.gz"])


# ---- Making ----------------------------------------------------------------------------------


def test_an_empty_project(tmp_path: Path) -> None:
    made = Project.create(tmp_path / "a" / "b", channels=("flair", "t1"), name="Lesions")
    again = Project.open(tmp_path / "a" / "b")
    assert (again.name, again.channels, again.cases) == ("Lesions", ["flair", "t1"], [])
    assert [(c.value, c.name) for c in made.classes] == [(1, "structure")]
    assert again.labeled_cases() == again.unlabeled_cases() == again.runs.list() == []
    assert Project.is_project(tmp_path / "a" / "b")
    assert not Project.is_project(tmp_path)
    with pytest.raises(ProjectError, match="is already a project"):
        Project.create(tmp_path / "a" / "b")


def test_the_folder_may_exist_when_it_is_empty(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    assert len(create_project(tmp_path / "p", scans / "images").cases) == 6
    (tmp_path / "file").write_text("")
    with pytest.raises(ProjectError, match="is a file"):
        Project.create(tmp_path / "file")


def test_classes_are_found_in_the_labels(scans: Path, tmp_path: Path) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[4], label[5] = 3, 255
    save_nifti(scans / "labels" / "scan-1.nii.gz", label)
    project = create_project(tmp_path / "p", scans / "images", scans / "labels")
    assert [(c.value, c.name) for c in project.classes] == [(1, "class 1"), (3, "class 3")]
    assert len({c.color for c in project.classes}) == 2
    # 255 is no class: it says that the case is not annotated everywhere.
    assert [c.status for c in project.cases[:3]] == ["labeled", "in_progress", "labeled"]


def test_names_of_classes_are_free_text(scans: Path, tmp_path: Path) -> None:
    names = ["class two", "class 1"]
    project = create_project(tmp_path / "p", scans / "images", scans / "labels", names)
    assert [(c.value, c.name) for c in project.classes] == [(1, "class two"), (2, "class 1")]
    for wrong in (["a", ""], ["x" * 61], [f"c{i}" for i in range(255)]):
        with pytest.raises(UserError, match="class names cannot be used"):
            create_project(tmp_path / "q", scans / "images", None, wrong)
    with pytest.raises(ProjectError, match="found twice: box") as caught:
        create_project(tmp_path / "q", scans / "images", None, ["box", "Box"])
    assert "backup" not in str(caught.value)
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("existed", [True, False])
def test_a_failed_start_leaves_the_disk_as_it_was(
    existed: bool, scans: Path, tmp_path: Path
) -> None:
    save_nifti(scans / "images" / "scan-7.nii.gz", np.zeros(SHAPE, np.int16))
    target = tmp_path / "new" / "deep" / "p"
    if existed:
        target.mkdir(parents=True)
    with pytest.raises(UserError, match=r"scan-7\.nii\.gz has the same value"):
        create_project(target, scans / "images", scans / "labels")
    assert target.exists() is existed
    assert (tmp_path / "new").exists() is existed
    assert not existed or list(target.iterdir()) == []


def test_an_interrupted_start_leaves_nothing(scans: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, name: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_project(tmp_path / "p", scans / "images", progress=interrupt)
    assert not (tmp_path / "p").exists()


def test_two_files_of_one_name_are_refused(scans: Path, tmp_path: Path) -> None:
    scan(scans / "images" / "scan-0.nii")
    with pytest.raises(UserError, match=r"contains scan-0\.nii(\.gz)? and scan-0\.nii"):
        create_project(tmp_path / "p", scans / "images")


def test_hidden_files_and_other_files_are_passed_over(scans: Path, tmp_path: Path) -> None:
    for name in ("._scan-0.nii.gz", ".DS_Store", "notes.txt", "dataset.json"):
        (scans / "images" / name).write_text("not a scan")
    (scans / "images" / "folder.nii.gz").mkdir()
    assert len(create_project(tmp_path / "p", scans / "images").cases) == 6


# ---- Adding ----------------------------------------------------------------------------------


def test_added_cases_are_all_or_none(project: Project, tmp_path: Path) -> None:
    before = tree(project.path)
    good = scan(tmp_path / "more" / "good.nii.gz")
    label = save_nifti(tmp_path / "drawn.nii.gz", np.full(SHAPE, 7, np.uint8))
    bad = tmp_path / "more" / "bad.nii.gz"
    bad.write_text("no scan")
    with pytest.raises(UserError, match=r"bad\.nii\.gz cannot be read"):
        project.add_cases([good, bad])
    with pytest.raises(LabelError, match=r"drawn\.nii\.gz contains the unknown class 7"):
        project.add_cases([good], labels={"good": label})
    assert tree(project.path) == before
    seen: list[tuple[int, int, str]] = []
    other = scan(tmp_path / "other" / "good.nii.gz")
    added = project.add_cases([good, other], progress=lambda *step: seen.append(step))
    assert [c.id for c in added] == ["good", "good-2"]
    assert seen == [(1, 2, "good"), (2, 2, "good-2")]
    assert Project.open(project.path).get_case("good-2").status == "unlabeled"


def test_a_label_that_cannot_be_written_adds_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(project.path)
    files = [scan(tmp_path / "more" / f"{n}.nii.gz") for n in "ab"]
    labels = {n: save_nifti(tmp_path / f"{n}.nii.gz", np.ones(SHAPE, np.uint8)) for n in "ab"}
    write = io.write_mask

    def full(mask: np.ndarray, *, reference: object, path: Path) -> None:
        if path.name == "b.nii.gz":
            raise ProjectError("the disk is full")
        write(mask, reference=reference, path=path)

    monkeypatch.setattr(io, "write_mask", full)
    with pytest.raises(ProjectError, match="disk is full"):
        project.add_cases(files, labels=labels)
    assert tree(project.path) == before


def test_a_label_of_a_case_that_was_added_stays_whatever_comes_after(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = manifest.edit_manifest

    def then_interrupted(*arguments: Any) -> None:
        changed(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "edit_manifest", then_interrupted)
    label = save_nifti(tmp_path / "a.nii.gz", np.ones(SHAPE, np.uint8))
    with pytest.raises(KeyboardInterrupt):
        project.add_cases([scan(tmp_path / "more" / "a.nii.gz")], labels={"a": label})
    again = Project.open(project.path)
    assert again.get_case("a").status == "labeled"
    assert again.labels.read("a").all()


def test_channels_on_other_grids_are_resampled_or_refused(tmp_path: Path) -> None:
    flair, t1 = scan(tmp_path / "flair.nii.gz"), scan(tmp_path / "t1.nii.gz", 1)
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


def test_scans_are_never_written_to(project: Project, scans: Path) -> None:
    before = tree(scans)
    shape = project.read_image("scan-4").shape
    project.labels.save("scan-4", np.ones(shape, np.uint8))
    run = project.runs.create("dycon", {})
    flat = np.zeros(shape, np.float32)
    project.predictions.write(run.id, "scan-4", np.zeros(shape, np.uint8), flat, flat)
    assert tree(scans) == before


# ---- Several windows -------------------------------------------------------------------------


def test_a_stale_window_does_not_replace_a_label(project: Project, tmp_path: Path) -> None:
    """Both add a scan of one name: the second gets another id, the first keeps its label."""
    other = Project.open(project.path)
    one = save_nifti(tmp_path / "1.nii.gz", np.ones(SHAPE, np.uint8))
    none = save_nifti(tmp_path / "0.nii.gz", np.zeros(SHAPE, np.uint8))
    project.add_cases([scan(tmp_path / "a" / "new.nii.gz")], labels={"new": one})
    added = other.add_cases([scan(tmp_path / "b" / "new.nii.gz", 1)], labels={"new": none})
    assert [c.id for c in added] == ["new-2"]
    assert other.labels.read("new").all()
    assert not other.labels.read("new-2").any()


def test_adding_at_the_same_moment_is_told(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Project.open(project.path)
    one = save_nifti(tmp_path / "1.nii.gz", np.ones(SHAPE, np.uint8))
    none = save_nifti(tmp_path / "0.nii.gz", np.zeros(SHAPE, np.uint8))
    file = scan(tmp_path / "new.nii.gz")

    def meanwhile(*_: object) -> None:
        project.add_cases([file], labels={"new": one})

    with pytest.raises(BusyError, match="added new at the same time"):
        other.add_cases([file], labels={"new": none}, progress=meanwhile)
    assert project.labels.read("new").all()
    assert [c.id for c in Project.open(project.path).cases].count("new") == 1


def test_the_status_follows_the_file_and_not_a_memory(project: Project) -> None:
    other = Project.open(project.path)
    shape = other.read_image("scan-0").shape
    project.labels.save("scan-0", np.full(shape, 255, np.uint8))
    assert Project.open(project.path).get_case("scan-0").status == "unlabeled"
    other.labels.save("scan-0", np.ones(shape, np.uint8))  # thinks it still is "labeled"
    assert Project.open(project.path).get_case("scan-0").status == "labeled"


def test_many_changes_of_two_windows_all_arrive(project: Project) -> None:
    other = Project.open(project.path)
    for number, case in enumerate(project.cases):
        (project, other)[number % 2].set_split(case.id, "validation")
        (other, project)[number % 2].set_status(case.id, "reviewed")
    for case in Project.open(project.path).cases:
        assert (case.split, case.status) == ("validation", "reviewed")


def test_a_lock_that_is_held_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    short = locks.folder_lock
    monkeypatch.setattr(manifest, "folder_lock", lambda folder: short(folder, 0.05))
    with (
        locks.folder_lock(project.path),
        pytest.raises(BusyError, match="Another session or command is changing project"),
    ):
        project.set_split("scan-0", "validation")
    project.set_split("scan-0", "validation")


# ---- Labels and classes ----------------------------------------------------------------------


def test_what_is_no_label_array(project: Project) -> None:
    shape = project.read_image("scan-0").shape
    before = tree(project.path)
    for array, words in (
        (np.full(shape, 0.5), "contains fractions"),
        (np.full(shape, -1), "unknown class -1"),
        (np.full(shape, 257), "unknown class 257"),
    ):
        with pytest.raises(LabelError, match=words):
            project.labels.save("scan-0", array)
    with pytest.raises(UserError, match=r"no case 'scan-O'.*Did you mean scan-"):
        project.labels.save("scan-O", np.ones(shape))
    assert tree(project.path) == before
    project.labels.save("scan-5", np.ones(shape, bool), status="reviewed")
    assert project.get_case("scan-5").status == "reviewed"
    assert project.labels.read("scan-5").dtype == np.uint8


def test_classes_can_be_added_and_changed(project: Project) -> None:
    assert project.add_class(" rim ").name == "rim"
    project.update_class(2, name="edge", color="#123456")
    assert Project.open(project.path).classes[1] == ClassInfo(value=2, name="edge", color="#123456")
    for change, words in (
        (lambda: project.add_class("EDGE"), "found twice: edge"),
        (lambda: project.add_class("  "), r"classes\.2\.name is invalid"),
        (lambda: project.add_class("x", "red"), r"classes\.2\.color is invalid.*found 'red'"),
        (lambda: project.update_class(1, name="edge"), "found twice: edge"),
        (lambda: project.set_status("scan-0", "done"), r"cases\.0\.status is invalid"),
        (lambda: project.set_split("scan-0", "test"), r"cases\.0\.split is invalid"),
    ):
        with pytest.raises(ProjectError, match=words) as caught:
            change()
        assert str(caught.value).endswith("Nothing was changed.")
        assert "\n" not in str(caught.value)
    assert [c.name for c in Project.open(project.path).classes] == ["box", "edge"]


# ---- Predictions -----------------------------------------------------------------------------


def test_predictions_are_kept_by_run(project: Project) -> None:
    first, second = project.runs.create("dycon", {}), project.runs.create("supervised", {})
    shape = project.read_image("scan-0").shape
    mask = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    maps = [np.random.default_rng(n).random(shape, np.float32) for n in (1, 2)]
    assert project.predictions.read(first.id, "scan-0") is None
    for run in (first, second):
        project.predictions.write(run.id, "scan-0", mask, *maps)
    assert project.predictions.list_run_ids("scan-0") == [second.id, first.id]
    assert project.predictions.list_run_ids("scan-1") == []
    assert np.array_equal(project.predictions.read(first.id, "scan-0"), mask)
    assert np.array_equal(project.predictions.read(first.id, "scan-0", "uncertainty"), maps[0])
    assert np.array_equal(project.predictions.read(first.id, "scan-0", "disagreement"), maps[1])
    for run_id in ("..", "../../elsewhere", "009-dycon"):
        with pytest.raises(ProjectError, match="does not exist"):
            project.predictions.write(run_id, "scan-0", mask, *maps)
    (project.path / "predictions" / "001-dycon.bak").write_text("")
    project.add_class("other")
    assert Project.open(project.path).predictions.list_run_ids("scan-0") == [second.id, first.id]


# ---- Names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", ["a\n", "a/../b", "C:x", "a\0", "nul.x", "x" * 151, "a.", "-a", "~"]
)
def test_names_that_are_no_ids(bad: str) -> None:
    assert not is_case_id(bad)


@pytest.mark.parametrize(
    "name",
    ["..", "../../etc/passwd", "con", "a  b", "-x", "", "é ü 患者", "x" * 400, "a (1)", "a\nb"],
)
def test_every_file_name_gives_an_id(name: str) -> None:
    found = unique_case_id(name, set())
    assert is_case_id(found)
    assert unique_case_id(name, {found.lower()}) != found
    assert is_case_id(unique_case_id(name, {found.lower()}))


def test_a_case_cannot_be_made_with_a_path_for_an_id() -> None:
    with pytest.raises(ValueError, match="expected letters, digits"):
        Case(id="../../x", images=["a.nii"])


# ---- Damage and missing rights ---------------------------------------------------------------


def damaged(project: Project, text: str | bytes) -> Path:
    data = text if isinstance(text, bytes) else text.encode()
    (project.path / "project.json").write_bytes(data)
    return project.path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not valid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "name is invalid: Field required"),
        (b"\xff\xfe\x00", "cannot be read"),
        ('{"schema_version": 2}', "newer version of napari-dycon .schema 2, this one supports 1."),
        ('{"schema_version": "one", "name": "x"}', "schema_version is invalid"),
    ],
)
def test_damage_is_one_line(text: str | bytes, words: str, project: Project) -> None:
    with pytest.raises(ProjectError, match=words) as caught:
        Project.open(damaged(project, text))
    assert "\n" not in str(caught.value)


def test_what_was_changed_by_hand_is_checked(project: Project) -> None:
    path = project.path / "project.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    twin = good["cases"][0] | {"id": "SCAN-1"}  # one file where names ignore case
    for changed, words in (
        (good | {"cases": [*good["cases"], twin]}, "every case id must be unique.*scan-1"),
        (good | {"channels": ["a", "b"]}, r"case scan-0 has 1 image.s., but .* 2 channel"),
        (
            good | {"classes": [good["classes"][0] | {"value": 255}]},
            r"classes\.0\.value is invalid",
        ),
        (
            good | {"cases": [good["cases"][0] | {"split": "test"}]},
            "split is invalid.*found 'test'",
        ),
    ):
        with pytest.raises(ProjectError, match=words):
            Project.open(damaged(project, json.dumps(changed)))
    # A change that meets damage writes nothing.
    before = tree(project.path)
    with pytest.raises(ProjectError, match="split is invalid"):
        project.set_status("scan-0", "reviewed")
    assert tree(project.path) == before


def test_a_folder_that_is_gone_is_not_made_anew(project: Project) -> None:
    gone = project.path.rename(project.path.with_name("elsewhere"))
    for change in (
        lambda: project.set_split("scan-0", "validation"),
        lambda: Project.open(project.path),
    ):
        with pytest.raises(ProjectError, match=r"is gone|does not exist"):
            change()
    assert not project.path.exists()
    assert len(Project.open(gone).cases) == 6


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only")]
)
def test_a_read_only_folder_is_told_in_words(
    error: OSError, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = project.read_image("scan-4").shape
    run = project.runs.create("dycon", {})
    file = scan(tmp_path / "new.nii.gz")
    before = tree(project.path)

    def refuse(*_: object, **__: object) -> None:
        raise error

    flat = np.zeros(shape, np.float32)
    attempts: list[Callable[[], object]] = [
        lambda: project.labels.save("scan-4", np.ones(shape, np.uint8)),
        lambda: project.set_status("scan-0", "reviewed"),
        lambda: project.add_cases([file]),
        lambda: project.predictions.write(run.id, "scan-4", flat, flat, flat),
        lambda: project.runs.create("dycon", {}),
        lambda: Project.create(tmp_path / "p"),
    ]
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    for attempt in attempts:
        with pytest.raises(ProjectError, match=r"Permission denied|Read-only") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert tree(project.path) == before
