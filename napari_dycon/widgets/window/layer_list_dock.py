"""Shows napari's list of layers only where the window has the width for it."""

from __future__ import annotations

import weakref

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QDockWidget

from napari_dycon.widgets.window.window_width import WindowWidth

MIN_WINDOW_WIDTH = 1280  # pixels


class LayerListDock(QObject):
    """Hides the list in a narrow window, and leaves it alone once the user shows or hides it."""

    def __init__(self, window_width: WindowWidth, dock: QDockWidget) -> None:
        super().__init__(window_width)
        self._dock = weakref.ref(dock)
        self._is_shown = not dock.isHidden()
        self._is_automatic = True
        window_width.changed.connect(self._arrange)
        self._arrange(window_width.width)

    def _arrange(self, width: int) -> None:
        dock = self._dock()
        if dock is None:
            return
        # The Window menu of napari changed it.
        self._is_automatic &= self._is_shown != dock.isHidden()
        if self._is_automatic:
            self._is_shown = width >= MIN_WINDOW_WIDTH
            dock.setVisible(self._is_shown)
