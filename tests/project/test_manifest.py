"""Damaged and edited project files, removed and read-only folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.folder_trees import read_tree
from helpers.nifti_files import save_nifti

from napari_dycon.errors import ProjectError
from napari_dycon.project.store import Project

SHAPE = (20, 22, 18)


def save_scan(path: Path, seed: int = 0) -> Path:
    return save_nifti(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def write_damaged_manifest(project: Project, text: str | bytes) -> Path:
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
def test_damage_is_reported_in_one_line(text: str | bytes, words: str, project: Project) -> None:
    with pytest.raises(ProjectError, match=words) as caught:
        Project.open(write_damaged_manifest(project, text))
    assert "\n" not in str(caught.value)


def test_manual_changes_are_validated(project: Project) -> None:
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
            Project.open(write_damaged_manifest(project, json.dumps(changed)))
    # A change that meets damage writes nothing.
    before = read_tree(project.path)
    with pytest.raises(ProjectError, match="split is invalid"):
        project.set_status("scan-0", "reviewed")
    assert read_tree(project.path) == before


def test_a_removed_folder_is_not_recreated(project: Project) -> None:
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
def test_a_read_only_folder_is_reported(
    error: OSError, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = project.read_image("scan-4").shape
    run = project.runs.create("dycon", {})
    file = save_scan(tmp_path / "new.nii.gz")
    before = read_tree(project.path)

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
    assert read_tree(project.path) == before
