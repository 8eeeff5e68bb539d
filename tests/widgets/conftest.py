"""A real window with the panel; tests are skipped without a display."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.example_window import WINDOW_SIZE, open_example, reset_window, wait_until
from helpers.shared_example import SharedExample, share_example

from napari_dycon.project.store import Project
from napari_dycon.widgets.background import interaction

PICTURES = Path(os.environ.get("NAPARI_DYCON_SCREENSHOTS", "screenshots"))


@pytest.fixture
def needs_display() -> None:
    """Skip where there is none."""
    skip_without_display()


def skip_without_display() -> None:
    """Skip a test that needs a display where there is none."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("no display; run under xvfb-run")


@pytest.fixture(scope="module")
def _exempt_objects() -> None:
    """Let Python collect only garbage of the windows that the tests of a file open.

    napari collects garbage whenever a layer is removed. Here, before the first window of a file,
    all that is left of others has been collected.
    """
    responsiveness = pytest.importorskip("napari_dycon.widgets.layers.responsiveness")
    importlib.import_module("napari_dycon.widgets.panel")
    responsiveness.load_layer_libraries()
    responsiveness.exempt_libraries_from_collection()
    gc.collect()
    gc.freeze()


@pytest.fixture
def window(
    _exempt_objects: None, needs_display: None, make_napari_viewer: Callable[..., Any], qtbot: Any
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


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let background tasks start at once, not after a pause of the user."""
    monkeypatch.setattr(interaction, "PAUSE_S", 0.0)


@pytest.fixture(autouse=True)
def _release_modifiers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no Shift or Ctrl of a simulated click act on the clicks of later tests."""
    yield
    if "qapp" not in request.fixturenames:
        return
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication, QWidget

    if QApplication.keyboardModifiers() != Qt.KeyboardModifier.NoModifier:
        QTest.keyClick(QWidget(), Qt.Key.Key_Shift)
        assert QApplication.keyboardModifiers() == Qt.KeyboardModifier.NoModifier


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
def module_window(_exempt_objects: None, qapp: Any) -> Iterator[Any]:
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


@pytest.fixture
def shared_window(module_window: Any) -> Iterator[Any]:
    """Window without a project, ``(viewer, panel)``; tests of a file share the window."""
    viewer, panel = module_window
    visible = dict(panel.layers.visible)
    if panel.session.project is not None:  # the example that other tests of the file share
        reset_window(viewer, panel, visible)
    yield viewer, panel
    reset_window(viewer, panel, visible)


@pytest.fixture
def opened_panel(shared_window: Any, project: Project) -> Any:
    """Window on the example, see ``open_example``; tests of a file share the window."""
    viewer, panel = shared_window
    open_example(panel, project)
    return viewer, panel


@pytest.fixture
def own_panel(window: Callable[[], Any], project: Project) -> Any:
    """Window on the example for one test, which may close it."""
    viewer, panel = window()
    open_example(panel, project)
    return viewer, panel


@pytest.fixture(scope="module")
def _shared_example(
    module_window: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedExample]:
    yield from share_example(*module_window, tmp_path_factory, has_side_views=False)


@pytest.fixture
def example_panel(_shared_example: SharedExample, qtbot: Any) -> Any:
    """Give ``(viewer, panel)`` of an example that tests of a file share.

    It is opened again after a test that changed more than its label and what is shown of it.
    """
    _shared_example.prepare(qtbot)
    return _shared_example.viewer, _shared_example.panel
