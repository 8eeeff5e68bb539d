"""Untrusted projects: paths and links that escape the folder, and what is opened as a scan."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.nifti_files import save_nifti
from helpers.project_files import read_all_files, rewrite_manifest

from napari_dycon import io
from napari_dycon.application.cases.thumbnails import load_thumbnails
from napari_dycon.core.containment import ensure_within
from napari_dycon.errors import FileFormatError, ProjectError
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.registry import export
from napari_dycon.io.dicom import reader
from napari_dycon.project import external_images, trusted_projects
from napari_dycon.project.importing.discovery import scans_from_paths
from napari_dycon.project.prediction_store import PredictionMetadata
from napari_dycon.project.runs.metadata import RunMetrics
from napari_dycon.project.store import Project

Command = Callable[..., tuple[int, str, str]]
links = pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
SHAPE = (20, 22, 18)


@links
@pytest.mark.parametrize("name", ["labels", "predictions", "runs", "cache"])
def test_folders_that_escape_the_project_are_not_written_to(
    name: str, project: Project, tmp_path: Path
) -> None:
    run = project.runs.create("dycon", {"method": "dycon"})
    outside = tmp_path / "outside"
    place = project.path / name
    if place.exists():
        place.rename(outside)
    else:
        outside.mkdir()
    place.symlink_to(outside, target_is_directory=True)
    before = read_all_files(outside)
    project = Project.open(project.path)
    mask = np.zeros(project.read_grid("scan-0").shape, np.uint8)
    flat = mask.astype(np.float32)
    attempts: dict[str, list[Callable[[], object]]] = {
        "labels": [
            lambda: project.labels.save("scan-0", mask),
            lambda: project.labels.read("scan-0"),
            lambda: project.add_cases(
                [save_nifti(tmp_path / "new.nii.gz", np.arange(7920).reshape(SHAPE).astype("i2"))],
                labels={"new": save_nifti(tmp_path / "l.nii.gz", np.ones(SHAPE, np.uint8))},
            ),
        ],
        "predictions": [
            lambda: project.predictions.write(run.id, "scan-0", mask, flat, flat),
            lambda: project.predictions.write_metadata(
                run.id, "scan-0", PredictionMetadata(score=1)
            ),
        ],
        "runs": [
            lambda: project.runs.create("dycon", {}),
            lambda: project.runs.get(run.id),
            lambda: project.predictions.write(run.id, "scan-0", mask, flat, flat),
        ],
        "cache": [lambda: project.cache_folder / "x"],
    }
    for attempt in attempts[name]:
        with pytest.raises(ProjectError, match=r"leads out of|does not exist"):
            attempt()
    load_thumbnails(project, ["scan-0"])  # kept in the cache, where there is one
    assert read_all_files(outside) == before


@links
def test_files_that_escape_the_project_are_neither_read_nor_replaced(
    project: Project, tmp_path: Path
) -> None:
    secret = save_nifti(tmp_path / "secret.nii.gz", np.ones(SHAPE, np.uint8))
    before = secret.read_bytes()
    label = project.labels.path("scan-0")
    label.unlink()
    label.symlink_to(secret)
    for attempt in (
        lambda: project.labels.path("scan-0"),
        lambda: export(project, "nifti", tmp_path / "out", ExportOptions(source="labels")),
        lambda: project.labels.read("scan-0"),
        lambda: project.labels.save(
            "scan-0", np.zeros(project.read_grid("scan-0").shape, np.uint8)
        ),
    ):
        with pytest.raises(ProjectError, match="leads out of"):
            attempt()
    run = project.runs.create("dycon", {})
    mask = project.predictions.path(run.id, "scan-0")
    mask.parent.mkdir(parents=True)
    mask.symlink_to(secret)
    with pytest.raises(ProjectError, match="leads out of"):
        project.predictions.read(run.id, "scan-0")
    (mask.parent / "scan-0.json").symlink_to(tmp_path / "project" / "project.json")
    assert (
        project.predictions.read_metadata(run.id, "scan-0") != PredictionMetadata()
    )  # a link that stays inside does no harm
    assert secret.read_bytes() == before


@links
@pytest.mark.parametrize("name", ["events.jsonl", "state", "log.txt", "state/registrations"])
def test_a_run_with_escaping_links_is_not_resumed(
    name: str, project: Project, run: Command, tmp_path: Path
) -> None:
    made = project.runs.create("dycon", {"method": "dycon"})
    outside = tmp_path / "outside"
    outside.mkdir()
    path = made.folder / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside, target_is_directory=True)
    with pytest.raises(ProjectError, match="leads out of"):
        project.runs.get(made.id)
    code, _, err = run("train", project.path, "--resume", made.id)
    assert (code, list(outside.iterdir())) == (2, [])
    assert "leads out of" in err


@links
def test_project_file_and_lock_may_not_be_links(project: Project, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (project.path / ".lock").unlink(missing_ok=True)
    (project.path / ".lock").symlink_to(victim)
    with pytest.raises(ProjectError, match="is a link"):
        project.set_split("scan-0", "validation")
    assert victim.read_text() == "precious"
    moved = (project.path / "project.json").rename(tmp_path / "elsewhere.json")
    (project.path / "project.json").symlink_to(moved)
    with pytest.raises(ProjectError, match="leads out of"):
        Project.open(project.path)


@links
def test_a_project_may_be_reached_by_a_link(project: Project, tmp_path: Path) -> None:
    (tmp_path / "door").symlink_to(project.path, target_is_directory=True)
    reached = Project.open(tmp_path / "door")
    reached.set_split("scan-0", "validation")
    assert reached.labels.read("scan-1") is not None


def test_paths_inside_the_folder_are_recognized(tmp_path: Path) -> None:
    assert ensure_within(tmp_path, tmp_path / "a" / "b") == tmp_path / "a" / "b"
    for out in (tmp_path / "..", tmp_path / "a" / ".." / ".." / "x", Path("/etc/passwd")):
        with pytest.raises(ProjectError, match="leads out of"):
            ensure_within(tmp_path, out)


@links
def test_runs_are_folders_with_valid_run_names(project: Project, tmp_path: Path) -> None:
    for name in ("<img src=x onerror=1>", "[bold]x", "a\nb"):
        folder = project.path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    other = tmp_path / "run"
    other.mkdir()
    (other / "config.json").write_text("{}")
    (project.path / "runs" / "001-dycon").symlink_to(other, target_is_directory=True)
    assert project.runs.list() == []


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("/etc/passwd", "not a scan by its name|does not exist"),
        ("../../../../../../../../etc/passwd", "not a scan by its name|does not exist"),
        ("/dev/zero", "is a device, not a scan|does not exist"),
        ("/dev/zero.nii.gz", "does not exist"),
        ("/proc/kmsg", "is a system file|does not exist|cannot be read"),
        ("/proc", "is a system file|does not exist"),
        ("x" * 300 + ".nii.gz", "does not exist"),
        ("weights.npy", "does not exist"),
    ],
)
def test_only_scans_are_opened_as_scans(image: str, found: str, project: Project) -> None:
    opened = rewrite_manifest(project, lambda values: values["cases"][0].update(images=[image]))
    begin = time.monotonic()
    for read in (opened.read_image, opened.read_grid):
        with pytest.raises(FileFormatError, match=found) as caught:
            read("scan-0")
        assert "root:" not in str(caught.value)
    assert time.monotonic() - begin < 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
@pytest.mark.timeout(30)
def test_pipes_sockets_and_link_loops_do_not_block(project: Project, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii.gz")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop.nii.gz").symlink_to(tmp_path / "loop.nii.gz")
    (tmp_path / "zero.nrrd").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s.mha")) if len(str(tmp_path)) < 90 else None
        for name in ("pipe.nii.gz", "pipe", "loop.nii.gz", "zero.nrrd", "s.mha"):
            with pytest.raises(FileFormatError, match=r"not a scan|does not exist"):
                io.read_volume(tmp_path / name)
    assert len(scans_from_paths([tmp_path / "pipe.nii.gz"])) == 1  # named, and not opened
    label = project.labels.path("scan-0")
    label.unlink()
    os.mkfifo(label)
    with pytest.raises(FileFormatError, match="is a pipe, not a scan"):
        project.labels.read("scan-0")
    picture = project.path / "cache" / "pictures" / "scan-1.npy"
    picture.parent.mkdir(parents=True)
    os.mkfifo(picture)
    assert load_thumbnails(project, ["scan-1"])["scan-1"].any()
    run = project.runs.create("dycon", {})
    for path in (run.events_path, run.control_path, run.metrics_path):
        os.mkfifo(path)
    assert run.read_events() == ([], 0)
    assert run.read_metrics() == RunMetrics()
    with pytest.raises(ProjectError, match="is a pipe, not a file"):
        run.read_control()
    (project.path / "project.json").unlink()
    os.mkfifo(project.path / "project.json")
    with pytest.raises(ProjectError, match="is a pipe, not a file"):
        Project.open(project.path)


@links
def test_circular_and_endless_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "system").symlink_to("/proc", target_is_directory=True)
    (folder / "kmsg").symlink_to("/proc/kmsg")
    with pytest.raises(FileFormatError, match="no DICOM images"):
        io.read_volume(folder)
    monkeypatch.setattr(reader, "MAX_FILES", 10)
    for number in range(11):
        (folder / f"f{number}").write_bytes(b"")
    with pytest.raises(FileFormatError, match="more than 10 files"):
        io.read_volume(folder)


@pytest.mark.parametrize(
    "image", ["http://a.b/c.nii.gz", "file:///etc/passwd", "smb://a/b", "", "a\0b", "x" * 5000]
)
def test_urls_are_not_accepted_as_paths(image: str, project: Project) -> None:
    with pytest.raises(
        ProjectError, match=r"cases\.0\.images is invalid: expected a path"
    ) as caught:
        rewrite_manifest(project, lambda values: values["cases"][0].update(images=[image]))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "image",
    [
        r"\\server\share\a.nii.gz",
        "//server/share/a.nii.gz",
        r"\\.\PhysicalDrive0",
        r"\\?\UNC\server\share\a",
    ],
)
def test_untrusted_projects_contact_no_other_machine(image: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"on another machine.*Nothing was read"):
        external_images.reject_network_path(image, tmp_path, is_windows=True)
    external_images.reject_network_path(image, tmp_path, is_windows=False)
    external_images.reject_network_path("C:/scans/a.nii.gz", tmp_path, is_windows=True)
    trusted_projects.trust(tmp_path)
    external_images.reject_network_path(image, tmp_path, is_windows=True)
