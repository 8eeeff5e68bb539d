"""Projects that were created on this computer, and external folders of others."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.project_files import read_all_files, rewrite_manifest

from napari_dycon.application.cases.thumbnails import load_thumbnails
from napari_dycon.core.user_dirs import user_state_dir
from napari_dycon.project import trusted_projects
from napari_dycon.project.store import Project

Command = Callable[..., tuple[int, str, str]]
links = pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")


def test_projects_created_here_are_trusted(
    project: Project, state_folder: Path, tmp_path: Path
) -> None:
    assert user_state_dir() == state_folder
    assert trusted_projects.is_trusted(project.path)
    assert not trusted_projects.is_trusted(tmp_path)
    trusted_projects.trust(tmp_path)
    trusted_projects.trust(tmp_path)
    assert trusted_projects.is_trusted(tmp_path / "x" / "..")
    record = state_folder / trusted_projects.FILE
    assert len(json.loads(record.read_text("utf-8"))["projects"]) == 2
    for damage in (
        b"",
        b"\xff",
        b"[1]",
        b'{"projects": 3}',
        b'{"projects": [3, null]}',
        b"[" * 9999,
    ):
        record.write_bytes(damage)
        assert not trusted_projects.is_trusted(project.path)
        trusted_projects.trust(project.path)
        assert trusted_projects.is_trusted(project.path)


def test_an_unusable_state_folder_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAPARI_DYCON_STATE", str(tmp_path / "file"))
    made = Project.create(tmp_path / "p")
    assert trusted_projects.is_trusted(made.path)  # for as long as this process lives
    monkeypatch.setattr(trusted_projects, "_trusted_this_session", set())
    assert not trusted_projects.is_trusted(made.path)


def test_without_the_variable_the_state_folder_is_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NAPARI_DYCON_STATE")
    assert "napari-dycon" in str(user_state_dir())
    monkeypatch.setitem(sys.modules, "platformdirs", None)  # as if it were not installed
    assert user_state_dir() == Path.home() / ".local" / "state" / "napari-dycon"


def test_thumbnails_of_a_read_only_project_are_not_stored(project: Project) -> None:
    before = read_all_files(project.path)
    load_thumbnails(Project.open(project.path, read_only_reason="open elsewhere"), ["scan-0"])
    assert read_all_files(project.path) == before


@links
def test_external_scan_folders_are_listed(project: Project, tmp_path: Path) -> None:
    assert project.external_folders() == [tmp_path / "scans" / "images"]
    inner = project.path / "scans"
    inner.mkdir()
    (tmp_path / "far").mkdir()
    (inner / "link.nii.gz").symlink_to(tmp_path / "far" / "x.nii.gz")
    (project.path / "door").symlink_to(tmp_path / "far", target_is_directory=True)
    names = ["scans/own.nii.gz", "scans/link.nii.gz", "door/y.nii.gz", "/a/b.nii.gz", "a.nii.gz#2"]
    opened = rewrite_manifest(
        project,
        lambda v: [c.update(images=[n]) for c, n in zip(v["cases"], names, strict=False)],
    )
    assert opened.external_folders() == sorted(
        [Path("/a"), tmp_path / "far", tmp_path / "scans/images"]
    )


def test_commands_report_the_external_folders_of_an_untrusted_project(
    project: Project, run: Command, state_folder: Path
) -> None:
    code, out, err = run("cases", project.path, "--json")
    assert (code, err) == (0, "")
    (state_folder / trusted_projects.FILE).unlink()
    rewrite_manifest(
        project,
        lambda v: [
            c.update(images=[f"/x{n}/a\x1b[2Jb/s.nii.gz"]) for n, c in enumerate(v["cases"])
        ],
    )
    code, out, err = run("cases", project.path, "--json")
    assert code == 0
    assert json.loads(out)["project"] == project.name
    assert len(err.splitlines()) == 1
    assert "comes from another computer or user" in err
    assert err.count(r"a\x1b[2Jb") == 3
    assert "and 3 more" in err
    assert "\x1b" not in err + out
