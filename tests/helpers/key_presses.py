"""Key presses in a window, delivered as by the system: to the window, not to a widget."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtTest import QTest


def press_key(viewer: Any, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
    """Press and release a key while the canvas has the focus."""
    viewer.window._qt_viewer.canvas.native.setFocus()
    press_key_in_window(viewer, key, modifier)


def press_key_in_window(
    viewer: Any, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier
) -> None:
    """Press and release a key, whatever has the focus."""
    QTest.keyClick(viewer.window._qt_window.windowHandle(), key, modifier)
