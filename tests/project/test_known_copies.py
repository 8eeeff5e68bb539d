"""A copy of an own project is not called untrusted; anything that reads other scans is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from helpers.project_files import rewrite_manifest

from napari_dycon.application.project_opening import list_untrusted_folders
from napari_dycon.project import trusted_projects
from napari_dycon.project.known_copies import reads_only_known_scans
from napari_dycon.project.store import Project
from napari_dycon.session import Session

Run = Callable[..., tuple[int, str, str]]


def copy(project: Project, target: Path) -> Project:
    shutil.copytree(project.path, target)
    return Project.open(target)


def test_a_copy_is_opened_without_a_question(project: Project, tmp_path: Path) -> None:
    copied = copy(project, tmp_path / "copy")
    assert not trusted_projects.is_trusted(copied.path)
    session = Session()
    asked: list[object] = []
    session.prompt_requested.connect(asked.append)
    session.open_project(copied.path)
    assert asked == []
    assert session.project is not None
    assert trusted_projects.is_trusted(copied.path)


def test_commands_say_nothing_about_a_copy(project: Project, tmp_path: Path, run: Run) -> None:
    copied = copy(project, tmp_path / "copy")
    assert run("cases", copied.path, "--json")[2] == ""


def test_a_copy_that_reads_another_scan_is_untrusted(project: Project, tmp_path: Path) -> None:
    copied = copy(project, tmp_path / "copy")
    other = tmp_path / "scans" / "labels" / "scan-0.nii.gz"  # exists, but is no scan of the project
    changed = rewrite_manifest(copied, lambda v: v["cases"][0].update(images=[str(other)]))
    assert not reads_only_known_scans(changed.path, changed.cases)
    assert other.parent in list_untrusted_folders(changed)
    assert not trusted_projects.is_trusted(changed.path)


def test_a_link_to_another_scan_is_untrusted(project: Project, tmp_path: Path) -> None:
    copied = copy(project, tmp_path / "copy")
    link = copied.path / "scan.nii.gz"
    link.symlink_to(tmp_path / "scans" / "labels" / "scan-0.nii.gz")
    changed = rewrite_manifest(copied, lambda v: v["cases"][0].update(images=["scan.nii.gz"]))
    assert list_untrusted_folders(changed)


def test_a_copy_of_an_unknown_or_missing_project_is_untrusted(
    project: Project, tmp_path: Path, state_folder: Path
) -> None:
    copied = copy(project, tmp_path / "copy")
    (project.path / "project.json").write_text("damaged")
    assert list_untrusted_folders(copied)
    shutil.rmtree(project.path)
    assert list_untrusted_folders(copied)
    (state_folder / trusted_projects.FILE).unlink()
    assert list_untrusted_folders(copied)


def test_a_subset_of_the_scans_is_known(project: Project, tmp_path: Path) -> None:
    copied = copy(project, tmp_path / "copy")
    fewer = rewrite_manifest(copied, lambda v: v["cases"].pop())
    assert list_untrusted_folders(fewer) == []


def test_scans_on_a_network_share_are_not_compared(project: Project, tmp_path: Path) -> None:
    """Comparing paths on a share would contact it before the user agrees."""
    image = "//server/share/scan.nii.gz"
    original = rewrite_manifest(project, lambda v: v["cases"][0].update(images=[image]))
    copied = copy(original, tmp_path / "copy")
    assert copied.cases == original.cases
    assert not reads_only_known_scans(copied.path, copied.cases)
