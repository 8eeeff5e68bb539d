"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.box_scans import make_scans
from helpers.nifti_files import save_nifti

from napari_dycon.cli import app
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of a parallel run a display of its own: a display has one mouse pointer."""
    xvfb = shutil.which("Xvfb")
    if not hasattr(config, "workerinput") or xvfb is None:
        return
    # Windows of most tests have one view, as on any screen below 1600 pixels.
    server = subprocess.Popen(
        [xvfb, "-displayfd", "1", "-screen", "0", "1590x1000x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    if number := server.stdout.readline().strip():  # empty if it could not start
        os.environ["DISPLAY"] = f":{number}"

    def stop() -> None:
        server.terminate()
        server.wait()

    config.add_cleanup(stop)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: none should be left at the end of a parallel run.

    These are files with windows, then files with a long training.
    """
    paths = {
        mark: {item.path for item in items if item.get_closest_marker(mark)}
        for mark in ("gui", "slow")
    }
    items.sort(key=lambda item: (item.path not in paths["gui"], item.path not in paths["slow"]))


@pytest.fixture(autouse=True)
def state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Projects that tests make are not remembered in the home of who runs them."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("NAPARI_DYCON_STATE", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Folder of a real data set, or a skip that says where it was looked for."""
    default = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("NAPARI_DYCON_DATA", default))

    def find(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"real scans are not at {folder}; set NAPARI_DYCON_DATA to their folder")
        return folder

    return find


@pytest.fixture
def write_nifti() -> Callable[..., Path]:
    """Writer of small NIfTI files."""
    return save_nifti


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Folder with images/ (6 noisy scans with a bright box) and labels/ (of the first 3)."""
    return make_scans(tmp_path / "scans")


@pytest.fixture
def project(scans: Path, tmp_path: Path) -> Project:
    """Project of six scans, three of them labeled."""
    return create_project(tmp_path / "project", scans / "images", scans / "labels", ["box"])


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["napari-dycon", *map(str, arguments)])
        code = 0
        try:
            app.main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        found = capsys.readouterr()
        return code, found.out, found.err

    return call
