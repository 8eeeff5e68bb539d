"""A real window with the panel; tests are skipped without a display."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_dycon.project.store import Project

PICTURES = Path(os.environ.get("NAPARI_DYCON_SCREENSHOTS", "screenshots"))


@pytest.fixture
def needs_display() -> None:
    """Skip where there is none."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("no display; run under xvfb-run")


@pytest.fixture(scope="session")
def _exempt_libraries() -> None:
    """Before the first window: objects of windows must be collected."""
    preloading = pytest.importorskip("napari_dycon.widgets.layers.preloading")
    importlib.import_module("napari_dycon.widgets.panel")
    preloading.load_layer_libraries()
    preloading.exempt_libraries_from_collection()


@pytest.fixture
def window(
    _exempt_libraries: None, needs_display: None, make_napari_viewer: Callable[..., Any], qtbot: Any
) -> Iterator[Callable[[], Any]]:
    """Open windows: returns a function that gives ``(viewer, panel)``."""
    panels = []

    def make() -> Any:
        viewer = make_napari_viewer(show=True)
        viewer.window._qt_window.resize(1366, 768)
        _, panel = viewer.window.add_plugin_dock_widget("napari-dycon", "DyCON")
        panels.append(panel)
        return viewer, panel

    yield make
    for panel in panels:
        panel.release()
        qtbot.waitUntil(lambda panel=panel: panel.task_runner.is_idle, timeout=20_000)


@pytest.fixture
def screenshot_folder() -> Path:
    """Folder for pictures of dialogs, to be looked at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES


@pytest.fixture
def save_screenshot() -> Callable[[Any, str], None]:
    """Save the whole window under a name, to be looked at."""

    def save(viewer: Any, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        viewer.screenshot(str(PICTURES / f"{name}.png"), canvas_only=False, flash=False)

    return save


@pytest.fixture
def opened_panel(window: Callable[[], Any], project: Project, qtbot: Any) -> Any:
    """Window on a project with a made-up prediction of scan-3, which is in view."""
    run = project.runs.create("dycon", {})
    shape = project.read_image("scan-3").shape
    mask = np.zeros(shape, np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    mask[15:18, 15:18, 14:17] = 1
    uncertainty = np.full(shape, 0.01, np.float32)
    uncertainty[4:6, 4:6, 4:8] = 0.9
    uncertainty[14:16, 14:16, 14:16] = 0.9
    project.predictions.write(run.id, "scan-3", mask, uncertainty, uncertainty / 2)
    viewer, panel = window()
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-3")
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    qtbot.waitUntil(lambda: panel.strip.profile is not None, timeout=20_000)
    # Overlays come one a turn of the event loop, this one last.
    qtbot.waitUntil(lambda: panel.layers.find_layer("disagreement") is not None, timeout=20_000)
    return viewer, panel
