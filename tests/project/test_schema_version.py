"""Manifests of this schema version open; those of other versions are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from napari_dycon.errors import ProjectError
from napari_dycon.project import models
from napari_dycon.project.schema_version import SCHEMA_VERSION
from napari_dycon.project.store import Project

# The first version of the file: cases had no field `resampled`.
FIRST: dict[str, Any] = {
    "schema_version": 1,
    "name": "first",
    "classes": [{"value": 1, "name": "box", "color": "#56b4e9"}],
    "channels": ["image"],
    "cases": [
        {"id": f"scan-{n}", "images": [f"../scans/images/scan-{n}.nii.gz"], "split": "train",
         "status": status}
        for n, status in enumerate(("unlabeled", "in_progress", "labeled", "reviewed"))
    ],
}  # fmt: skip


def write_manifest(folder: Path, values: dict[str, Any]) -> bytes:
    folder.mkdir(exist_ok=True)
    (folder / "project.json").write_text(json.dumps(values), "utf-8")
    return (folder / "project.json").read_bytes()


@pytest.mark.parametrize("without", [(), ("schema_version",), ("cases",)])
def test_every_earlier_schema_opens(without: tuple[str, ...], tmp_path: Path) -> None:
    before = write_manifest(tmp_path / "p", {k: v for k, v in FIRST.items() if k not in without})
    project = Project.open(tmp_path / "p")
    assert [case.resampled for case in project.cases] == [False] * len(project.cases)
    assert (tmp_path / "p" / "project.json").read_bytes() == before


def test_short_forms_of_a_case_open(tmp_path: Path) -> None:
    write_manifest(tmp_path / "p", {**FIRST, "cases": [{"id": "a", "images": ["a.nii"]}]})
    (case,) = Project.open(tmp_path / "p").cases
    assert (case.split, case.status, case.resampled) == ("train", "unlabeled", False)


@pytest.mark.parametrize("version", [2, 10**8])
def test_a_newer_schema_is_refused_with_advice(version: int, tmp_path: Path) -> None:
    before = write_manifest(tmp_path / "p", {"schema_version": version, "unheard": "of"})
    with pytest.raises(ProjectError, match="Update napari-dycon to open it"):
        Project.open(tmp_path / "p")
    assert (tmp_path / "p" / "project.json").read_bytes() == before


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, None, True, [1]])
def test_invalid_versions_are_refused(version: object, tmp_path: Path) -> None:
    write_manifest(tmp_path / "p", {**FIRST, "schema_version": version})
    with pytest.raises(ProjectError, match="schema_version is invalid: expected 1"):
        Project.open(tmp_path / "p")


def test_the_manifest_is_written_with_this_version() -> None:
    assert models.ProjectManifest.model_fields["schema_version"].default == SCHEMA_VERSION
