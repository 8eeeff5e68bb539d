"""A real window with the panel docked; skipped where there is no display."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PICTURES = Path(os.environ.get("NAPARI_DYCON_SCREENSHOTS", "screenshots"))


@pytest.fixture
def needs_display() -> None:
    """Skip where there is none."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("no display; run under xvfb-run")


@pytest.fixture
def window(
    needs_display: None, make_napari_viewer: Callable[..., Any], qtbot: Any
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
def pictures() -> Path:
    """Folder for pictures of dialogs, to be looked at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES


@pytest.fixture
def picture() -> Callable[[Any, str], None]:
    """Save the whole window under a name, to be looked at."""

    def save(viewer: Any, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        viewer.screenshot(str(PICTURES / f"{name}.png"), canvas_only=False, flash=False)

    return save
