"""Key presses in a window."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtTest import QTest


def press_key(viewer: Any, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    QTest.keyClick(canvas, key, modifier)
