"""Projects of every earlier version open; what they were is kept before they are written anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from napari_dycon.errors import ProjectError
from napari_dycon.project import manifest, migrations, models
from napari_dycon.project.store import Project

# The first shape of the file: cases did not say whether their slices are resampled.
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


def put(folder: Path, values: dict[str, Any]) -> bytes:
    folder.mkdir(exist_ok=True)
    (folder / "project.json").write_text(json.dumps(values), "utf-8")
    return (folder / "project.json").read_bytes()


@pytest.mark.parametrize("without", [(), ("schema_version",), ("cases",)])
def test_every_shape_that_was_written_opens(without: tuple[str, ...], tmp_path: Path) -> None:
    before = put(tmp_path / "p", {k: v for k, v in FIRST.items() if k not in without})
    project = Project.open(tmp_path / "p")
    assert [case.resampled for case in project.cases] == [False] * len(project.cases)
    assert (tmp_path / "p" / "project.json").read_bytes() == before
    project.add_class("sphere")
    assert [p.name for p in (tmp_path / "p").glob("*.bak")] == []  # of the same schema


def test_short_forms_of_a_case_open(tmp_path: Path) -> None:
    put(tmp_path / "p", {**FIRST, "cases": [{"id": "a", "images": ["a.nii"]}]})
    (case,) = Project.open(tmp_path / "p").cases
    assert (case.split, case.status, case.resampled) == ("train", "unlabeled", False)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema 0 that called cases scans, and a schema -1 that had one path a scan."""

    def from_0(values: dict[str, Any]) -> None:
        values["cases"] = values.pop("scans")

    def from_minus_1(values: dict[str, Any]) -> None:
        for scan in values["scans"]:
            scan["images"] = [scan.pop("image")]

    monkeypatch.setattr(migrations, "MIGRATIONS", {0: from_0, -1: from_minus_1})


@pytest.mark.usefixtures("made_up")
def test_an_earlier_schema_is_upgraded_and_kept(tmp_path: Path) -> None:
    old = {k: v for k, v in FIRST.items() if k != "cases"} | {"schema_version": -1}
    old["scans"] = [{"id": "a", "image": "a.nii"}]
    before = put(tmp_path / "p", old)
    project = Project.open(tmp_path / "p")
    assert project.get_case("a").images == ["a.nii"]
    assert [p.name for p in (tmp_path / "p").iterdir()] == ["project.json"]  # only read
    project.set_split("a", "validation")
    assert (tmp_path / "p" / "project.json.v-1.bak").read_bytes() == before
    assert json.loads((tmp_path / "p" / "project.json").read_text("utf-8"))["schema_version"] == 1
    project.set_split("a", "train")
    assert len(list((tmp_path / "p").glob("*.bak"))) == 1
    put(tmp_path / "p", old)  # somebody restored it by hand
    Project.open(tmp_path / "p").set_split("a", "validation")
    assert (tmp_path / "p" / "project.json.v-1-2.bak").exists()


@pytest.mark.usefixtures("made_up")
def test_nothing_is_written_without_a_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {k: v for k, v in FIRST.items() if k != "cases"}
    before = put(tmp_path / "p", {**old, "schema_version": 0, "scans": FIRST["cases"]})

    def full(*_: object) -> None:
        raise ProjectError("the disk is full")

    monkeypatch.setattr(migrations, "write_text", full)
    with pytest.raises(ProjectError, match="the disk is full"):
        Project.open(tmp_path / "p").set_split("scan-0", "validation")
    assert (tmp_path / "p" / "project.json").read_bytes() == before


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("scans", [None, [3], [{}], "x"])
def test_a_damaged_earlier_schema_is_told(scans: object, tmp_path: Path) -> None:
    put(tmp_path / "p", {**FIRST, "schema_version": -1, "scans": scans})
    with pytest.raises(ProjectError, match=r"project\.json"):
        Project.open(tmp_path / "p")


@pytest.mark.parametrize("version", [2, 10**8])
def test_a_newer_schema_is_refused_politely(version: int, tmp_path: Path) -> None:
    before = put(tmp_path / "p", {"schema_version": version, "unheard": "of"})
    with pytest.raises(ProjectError, match="Update napari-dycon to open it"):
        Project.open(tmp_path / "p")
    assert (tmp_path / "p" / "project.json").read_bytes() == before


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, None, True, [1]])
def test_versions_that_never_were(version: object, tmp_path: Path) -> None:
    put(tmp_path / "p", {**FIRST, "schema_version": version})
    with pytest.raises(ProjectError, match="schema_version is wrong: expected 1"):
        Project.open(tmp_path / "p")


def test_the_schema_and_its_upgrades_agree() -> None:
    assert (
        models.ProjectManifest.model_fields["schema_version"].default == migrations.SCHEMA_VERSION
    )
    assert set(migrations.MIGRATIONS) == set(range(1, migrations.SCHEMA_VERSION))
    assert manifest.FILE == "project.json"
