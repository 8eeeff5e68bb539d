"""Projects from anybody: they open in words or not at all, and nothing leaves their folder."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

from napari_dycon import io
from napari_dycon.application.cases.summaries import _load_thumbnails
from napari_dycon.core.containment import ensure_within
from napari_dycon.core.user_dirs import user_state_dir
from napari_dycon.errors import FileFormatError, ProjectError, UserError
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.registry import export
from napari_dycon.io.dicom import reader
from napari_dycon.project import external_images, trusted_projects
from napari_dycon.project.case_ids import is_case_id, normalize_name
from napari_dycon.project.importing.discovery import scans_from_paths
from napari_dycon.project.manifest import MAX_MANIFEST_BYTES
from napari_dycon.project.runs.event_lines import parse_event
from napari_dycon.project.store import Project

Command = Callable[..., tuple[int, str, str]]
links = pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
SHAPE = (20, 22, 18)


def values_of(project: Project) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((project.path / "project.json").read_text("utf-8"))
    return values


def rewrite(project: Project, change: Callable[[dict[str, Any]], object]) -> Project:
    values = values_of(project)
    change(values)
    (project.path / "project.json").write_text(json.dumps(values), "utf-8")
    return Project.open(project.path)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- Nothing is written outside ------------------------------------------------------------------


@links
@pytest.mark.parametrize("name", ["labels", "predictions", "runs", "cache"])
def test_folders_that_lead_out_are_not_written_to(
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
    before = everything(outside)
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
            lambda: project.predictions.write_metadata(run.id, "scan-0", {"score": 1}),
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
    _load_thumbnails(project, ["scan-0"])  # kept in the cache, where there is one
    assert everything(outside) == before


@links
def test_files_that_lead_out_are_neither_read_nor_replaced(
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
        project.predictions.read_metadata(run.id, "scan-0") != {}
    )  # a link that stays inside does no harm
    assert secret.read_bytes() == before


@links
@pytest.mark.parametrize("name", ["events.jsonl", "state", "log.txt", "state/borrowed"])
def test_a_run_with_links_out_is_not_gone_on_with(
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
    code, _, said = run("train", project.path, "--resume", made.id)
    assert (code, list(outside.iterdir())) == (2, [])
    assert "leads out of" in said


@links
def test_project_file_and_lock_are_no_links(project: Project, tmp_path: Path) -> None:
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


def test_inside(tmp_path: Path) -> None:
    assert ensure_within(tmp_path, tmp_path / "a" / "b") == tmp_path / "a" / "b"
    for out in (tmp_path / "..", tmp_path / "a" / ".." / ".." / "x", Path("/etc/passwd")):
        with pytest.raises(ProjectError, match="leads out of"):
            ensure_within(tmp_path, out)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", "..", ".", "", " a", "a ", "a.", ".a", "con", "NUL", "com1.x", "Com9",
     "LPT\u00b9", "con .txt", "a:b", "a\nb", "a\x1b[31m", "a\0", "<b>", "x" * 151, "\u65e5" * 80,
     "a..b", "\ud800", "$(x)", "a|b"],
)  # fmt: skip
def test_names_that_are_no_names_of_files(name: str, project: Project) -> None:
    assert not is_case_id(name)
    with pytest.raises(ProjectError, match=r"project\.json"):
        rewrite(project, lambda values: values["cases"][0].update(id=name))


@pytest.mark.parametrize(
    "pair", [("Case", "case"), ("\u00e9", "E\u0301"), ("\uac00", "\u1100\u1161")]
)
def test_ids_that_some_system_takes_for_one(pair: tuple[str, str], project: Project) -> None:
    assert normalize_name(pair[0]) == normalize_name(pair[1])
    if all(map(is_case_id, pair)):
        with pytest.raises(ProjectError, match="must be unique"):
            rewrite(
                project,
                lambda v: [
                    case.update(id=name) for case, name in zip(v["cases"], pair, strict=False)
                ],
            )


@links
def test_runs_are_folders_with_names_of_runs(project: Project, tmp_path: Path) -> None:
    for name in ("<img src=x onerror=1>", "[bold]x", "a\nb"):
        folder = project.path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    other = tmp_path / "run"
    other.mkdir()
    (other / "config.json").write_text("{}")
    (project.path / "runs" / "001-dycon").symlink_to(other, target_is_directory=True)
    assert project.runs.list() == []


# ---- What is read --------------------------------------------------------------------------------


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
    opened = rewrite(project, lambda values: values["cases"][0].update(images=[image]))
    begin = time.monotonic()
    for read in (opened.read_image, opened.read_grid):
        with pytest.raises(FileFormatError, match=found) as caught:
            read("scan-0")
        assert "root:" not in str(caught.value)
    assert time.monotonic() - begin < 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
@pytest.mark.timeout(30)
def test_pipes_sockets_and_circles_are_not_waited_for(project: Project, tmp_path: Path) -> None:
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
    assert _load_thumbnails(project, ["scan-1"])["scan-1"].any()
    run = project.runs.create("dycon", {})
    for path in (run.events_path, run.control_path, run.metrics_path):
        os.mkfifo(path)
    assert run.read_events() == ([], 0)
    assert run.read_metrics() == {}
    with pytest.raises(ProjectError, match="is a pipe, not a file"):
        run.read_control()
    (project.path / "project.json").unlink()
    os.mkfifo(project.path / "project.json")
    with pytest.raises(ProjectError, match="is a pipe, not a file"):
        Project.open(project.path)


@links
def test_folders_in_a_circle_and_without_end(
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
def test_addresses_are_no_paths(image: str, project: Project) -> None:
    with pytest.raises(
        ProjectError, match=r"cases\.0\.images is invalid: expected a path"
    ) as caught:
        rewrite(project, lambda values: values["cases"][0].update(images=[image]))
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
def test_other_machines_are_not_called_for_strangers(image: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"on another machine.*Nothing was read"):
        external_images.reject_network_path(image, tmp_path, is_windows=True)
    external_images.reject_network_path(image, tmp_path, is_windows=False)
    external_images.reject_network_path("C:/scans/a.nii.gz", tmp_path, is_windows=True)
    trusted_projects.trust(tmp_path)
    external_images.reject_network_path(image, tmp_path, is_windows=True)


# ---- project.json itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[" * 100_000, "not valid JSON"),
        ('{"a":' * 50 + "1" + "}" * 50, "nested too deeply"),
        ('{"name": "a", "name": "b"}', "the name 'name' occurs twice"),
        ('{"schema_version": ' + "9" * 9999 + "}", "not valid JSON"),
        ('{"schema_version": NaN}', "not a JSON number"),
        ('{"schema_version": 1, "name": "a\ud800"}', "project.json"),
        ("null", "is not a project"),
        ('"x"', "is not a project"),
        ("", "not valid JSON"),
        ("\x00", "not valid JSON"),
    ],
)
def test_texts_that_are_no_project(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "project.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ProjectError, match=found) as caught:
        Project.open(tmp_path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(name="a\ud800"),
        lambda v: v["classes"][0].update(value=10**30),
        lambda v: v["classes"][0].update(value="1e999"),
        lambda v: v["classes"][0].update(name=["x"] * 10**5),
        lambda v: v.update(classes=v["classes"] * 300),
        lambda v: v.update(channels=["a"] * 10**5),
        lambda v: v.update(cases={"a": 1}),
        lambda v: v["cases"][0].update(images=["a"] * 10**5),
        lambda v: v["cases"][0].update(images="abc"),
        lambda v: v["cases"][0].update(status="<script>"),
        lambda v: v["cases"].append(v["cases"][0]),
        lambda v: v.update(surprise="x" * 10**6),
        lambda v: v.update(schema_version="1.0"),
        lambda v: v.update(schema_version=0),
        lambda v: v.update(schema_version=-(10**30)),
    ],
)
def test_values_out_of_range_are_told_in_a_line(
    change: Callable[[dict[str, Any]], object], project: Project
) -> None:
    with pytest.raises(ProjectError, match=r"project\.json") as caught:
        rewrite(project, change)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_project_file_without_end(tmp_path: Path) -> None:
    with (tmp_path / "project.json").open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(ProjectError, match="64 MB"):
        Project.open(tmp_path)


def test_a_hundred_thousand_cases_open_in_seconds(project: Project) -> None:
    many = 100_000
    rewrite(
        project,
        lambda values: values.update(
            cases=[
                {"id": f"case-{n}", "images": [f"../scans/{n % 50}/{n}.nii.gz"]}
                for n in range(many)
            ]
        ),
    )
    begin = time.monotonic()
    opened = Project.open(project.path)
    assert len(opened.cases) == many
    assert len(opened.unlabeled_cases()) == many
    assert len([opened.image_paths(case.id) for case in opened.cases[:2000]]) == 2000
    assert len(opened.external_folders()) == 50
    assert time.monotonic() - begin < 20  # 3 s on a quiet machine
    with pytest.raises(ProjectError, match="found twice: case-1"):
        rewrite(project, lambda values: values["cases"].append(values["cases"][1]))


# ---- Whose project it is -------------------------------------------------------------------------


def test_projects_made_here_are_known(project: Project, state_folder: Path, tmp_path: Path) -> None:
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


def test_a_state_folder_that_cannot_be_used_hinders_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAPARI_DYCON_STATE", str(tmp_path / "file"))
    made = Project.create(tmp_path / "p")
    assert trusted_projects.is_trusted(made.path)  # for as long as this process lives
    monkeypatch.setattr(trusted_projects, "_trusted_this_session", set())
    assert not trusted_projects.is_trusted(made.path)


def test_without_the_variable_the_state_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAPARI_DYCON_STATE")
    assert "napari-dycon" in str(user_state_dir())
    monkeypatch.setitem(sys.modules, "platformdirs", None)  # as if it were not installed
    assert user_state_dir() == Path.home() / ".local" / "state" / "napari-dycon"


def test_pictures_of_a_project_that_is_only_shown_are_not_kept(project: Project) -> None:
    before = everything(project.path)
    _load_thumbnails(
        Project.open(project.path, read_only_reason="somebody works on it"), ["scan-0"]
    )
    assert everything(project.path) == before


@links
def test_folders_that_scans_are_read_from(project: Project, tmp_path: Path) -> None:
    assert project.external_folders() == [tmp_path / "scans" / "images"]
    inner = project.path / "scans"
    inner.mkdir()
    (tmp_path / "far").mkdir()
    (inner / "link.nii.gz").symlink_to(tmp_path / "far" / "x.nii.gz")
    (project.path / "door").symlink_to(tmp_path / "far", target_is_directory=True)
    names = ["scans/own.nii.gz", "scans/link.nii.gz", "door/y.nii.gz", "/a/b.nii.gz", "a.nii.gz#2"]
    opened = rewrite(
        project,
        lambda v: [c.update(images=[n]) for c, n in zip(v["cases"], names, strict=False)],
    )
    assert opened.external_folders() == sorted(
        [Path("/a"), tmp_path / "far", tmp_path / "scans/images"]
    )


def test_commands_tell_where_a_strangers_project_reads(
    project: Project, run: Command, state_folder: Path
) -> None:
    code, out, said = run("cases", project.path, "--json")
    assert (code, said) == (0, "")
    (state_folder / trusted_projects.FILE).unlink()
    rewrite(
        project,
        lambda v: [
            c.update(images=[f"/x{n}/a\x1b[2Jb/s.nii.gz"]) for n, c in enumerate(v["cases"])
        ],
    )
    code, out, said = run("cases", project.path, "--json")
    assert code == 0
    assert json.loads(out)["project"] == project.name
    assert len(said.splitlines()) == 1
    assert "was not made by you on this computer" in said
    assert said.count(r"a\x1b[2Jb") == 3
    assert "and 3 more" in said
    assert "\x1b" not in said + out


# ---- Events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"3", b"{}", b"\xff", b"{" * 9999, b'{"event": 3}',
        b'{"event": "step", "step": "x"}',
        b'{"event": "step", "progress": 7}',
        b'{"event": "step", "parts": [1]}',
        b'{"event": "warning", "message": {}}',
        b'{"event": "finished", "elapsed": 1e999}',
        b'{"event": "step", "loss": true}',
        b'{"event": "' + b"x" * 300_000 + b'"}',
    ],
)  # fmt: skip
def test_lines_that_are_no_events_count_as_not_there(line: bytes) -> None:
    assert parse_event(line) is None


def test_events_have_all_that_a_window_asks_for(project: Project) -> None:
    from napari_dycon.application.run_status import RunStatus, apply_event
    from napari_dycon.application.training_history import read_training_history

    run = project.runs.create("dycon", {"method": "dycon"})
    kinds = ("started", "preparing", "warps", "step", "validation", "warning", "preview", "failed")
    status = RunStatus("starting", run.id)
    for kind in (*kinds, "finished", "stopped", "of tomorrow"):
        event = parse_event(json.dumps({"event": kind}).encode())
        assert event is not None
        status = apply_event(status, event)
        run.append_event({"event": kind})
    assert len(run.read_events()[0]) == 11
    assert [one.run for one in read_training_history(project)] == []


def test_of_endless_events_the_last_are_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = project.runs.create("dycon", {})
    for step in range(1000):
        run.append_event({"event": "step", "step": step})
    monkeypatch.setattr("napari_dycon.project.runs.run.MAX_EVENTS_BYTES", 500)
    events, offset = run.read_events()
    assert 5 < len(events) < 20
    assert events[-1]["step"] == 999
    assert offset == run.events_path.stat().st_size
    assert run.read_events(offset) == ([], offset)


def test_a_user_error_is_what_all_of_this_raises() -> None:
    assert issubclass(ProjectError, UserError)
    assert issubclass(FileFormatError, UserError)
