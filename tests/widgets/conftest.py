"""A real window with the panel; tests are skipped without a display."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_dycon.project.store import Project
from napari_dycon.widgets.views.planes import Plane
from napari_dycon.widgets.window.preferences import get_preferences

WINDOW_SIZE = (1366, 768)
PICTURES = Path(os.environ.get("NAPARI_DYCON_SCREENSHOTS", "screenshots"))


@pytest.fixture
def needs_display() -> None:
    """Skip where there is none."""
    skip_without_display()


def skip_without_display() -> None:
    """Skip a test that needs a display where there is none."""
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
        viewer.window._qt_window.resize(*WINDOW_SIZE)
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


@pytest.fixture(scope="module")
def module_window(_exempt_libraries: None, qapp: Any) -> Iterator[Any]:
    """Give ``(viewer, panel)`` of a window that the tests of a file share."""
    from napari import Viewer
    from napari.qt import QtViewer

    skip_without_display()
    with pytest.MonkeyPatch.context() as patch, separate_app_model(patch):
        patch.setattr("napari._qt.threads.status_checker.StatusChecker.start", lambda _: None)
        patch.setattr(
            "napari._qt.qt_main_window._QtMainWindow._save_current_window_settings",
            lambda _: None,
        )
        viewer = Viewer(show=True, show_welcome_screen=False)
        # Other windows of the file check that no viewer was left.
        QtViewer._instances.discard(viewer.window._qt_viewer)
        viewer.window._qt_window.resize(*WINDOW_SIZE)
        _, panel = viewer.window.add_plugin_dock_widget("napari-dycon", "DyCON")
        yield viewer, panel
        panel.release()
        wait_until(lambda: panel.task_runner.is_idle)
        viewer.close()
        qapp.processEvents()


@contextlib.contextmanager
def separate_app_model(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give a window a model of the application of its own, as napari's own fixture does."""
    from app_model import Application
    from napari._app_model._app import NapariApplication, _napari_names
    from napari._qt._qapp_model.qactions import init_qactions
    from napari.plugins import _initialize_plugins

    _initialize_plugins.cache_clear()
    init_qactions.cache_clear()
    app = NapariApplication("module_app")
    app.injection_store.namespace = _napari_names
    patch.setattr(NapariApplication, "get_app_model", lambda *_: app)
    try:
        yield
    finally:
        Application.destroy("module_app")
        _initialize_plugins.cache_clear()
        init_qactions.cache_clear()


def wait_until(condition: Callable[[], bool]) -> None:
    """Process events until a condition holds, for at most 20 s."""
    from qtpy.QtTest import QTest

    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        QTest.qWait(10)


def reset_window(viewer: Any, panel: Any, visible: dict[str, bool]) -> None:
    """Close the project and return to the state of a new window."""
    panel.session.flush()
    panel.session.close_project()
    wait_until(lambda: bool(panel.task_runner.is_idle))
    layers, views = panel.layers, panel.canvas_area.views
    viewer.layers.clear()
    viewer.theme = "dark"
    viewer.window._qt_window.resize(*WINDOW_SIZE)
    if layers.are_overlays_hidden:
        layers.toggle_overlays()
    for role, is_visible in visible.items():
        layers.set_visible(role, is_visible)
        if role in panel.review.toggles:
            panel.review.toggles[role].setChecked(is_visible)
    layers.set_filled(True)
    layers.set_brush_3d(False)
    layers.set_brush_mm(get_preferences().annotate.brush_mm)
    views.show_crosshair(True)
    views.show_plane(Plane.AXIAL)
    panel.tabs.setCurrentIndex(0)
    panel.message_label.dismiss()
    panel.message_label._recent.clear()


def open_example(panel: Any, project: Project) -> None:
    """Open a project with a made-up prediction of scan-3, and show scan-3."""
    run = project.runs.create("dycon", {})
    shape = project.read_image("scan-3").shape
    mask = np.zeros(shape, np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    mask[15:18, 15:18, 14:17] = 1
    uncertainty = np.full(shape, 0.01, np.float32)
    uncertainty[4:6, 4:6, 4:8] = 0.9
    uncertainty[14:16, 14:16, 14:16] = 0.9
    project.predictions.write(run.id, "scan-3", mask, uncertainty, uncertainty / 2)
    panel.session.open_project(project.path)
    wait_until(lambda: panel.session.project is not None)
    panel.session.show_case("scan-3")
    wait_until(lambda: panel.session.case is not None)
    wait_until(lambda: panel.strip.profile is not None)
    # Overlays come one a turn of the event loop, this one last.
    wait_until(lambda: panel.layers.find_layer("disagreement") is not None)


@pytest.fixture
def opened_panel(module_window: Any, project: Project) -> Iterator[Any]:
    """Window on the example, see ``open_example``; tests of a file share the window."""
    viewer, panel = module_window
    visible = dict(panel.layers.visible)
    open_example(panel, project)
    yield viewer, panel
    reset_window(viewer, panel, visible)


@pytest.fixture
def own_panel(window: Callable[[], Any], project: Project) -> Any:
    """Window on the example for one test, which may close it."""
    viewer, panel = window()
    open_example(panel, project)
    return viewer, panel
