"""The window draws while other threads compute."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from napari_dycon.widgets.layers.responsiveness import SWITCH_INTERVAL_S

pytestmark = pytest.mark.gui

DEFAULT_INTERVAL_S = 0.005


@pytest.fixture
def _default_interval() -> Iterator[None]:
    """Python's own interval before the window opens; afterwards the one of the other tests."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(DEFAULT_INTERVAL_S)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_default_interval")
def test_an_open_panel_lets_threads_switch_sooner(window: Any, qtbot: Any) -> None:
    window()
    qtbot.waitUntil(lambda: sys.getswitchinterval() < DEFAULT_INTERVAL_S)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    assert SWITCH_INTERVAL_S <= DEFAULT_INTERVAL_S / 10
