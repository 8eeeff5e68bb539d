"""Handling of unexpected errors of this package: one sentence and a saved report, no traceback.

napari shows unhandled exceptions as a notification with a traceback, which suits programmers. Here
users get one sentence and a report is saved for programmers. Only errors raised in this package are
handled, and only in place of napari's own handler.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from napari.utils.notifications import notification_manager

from napari_dycon.core.crash_report import raised_in_package
from napari_dycon.session import Session

ExceptHook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


class ErrorHandler:
    """Replaces napari's exception hook while a panel is open."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._previous_hook: ExceptHook | None = None
        self._is_uninstalled = False

    def install(self) -> None:
        """Install the hook.

        Call it after napari's event loop has started, which installs napari's own hook.
        """
        current_hook = sys.excepthook
        if (
            not self._is_uninstalled
            and getattr(current_hook, "__self__", None) is notification_manager
        ):
            self._previous_hook = current_hook
            sys.excepthook = self.handle

    def uninstall(self) -> None:
        """Restore napari's handler."""
        self._is_uninstalled = True
        if self._previous_hook is not None and sys.excepthook == self.handle:
            sys.excepthook = self._previous_hook
        self._previous_hook = None

    def handle(
        self,
        error_type: type[BaseException],
        error: BaseException,
        traceback: TracebackType | None = None,
    ) -> None:
        """Report errors of this package in a sentence; pass on all others."""
        if isinstance(error, Exception) and raised_in_package(traceback):
            self._session.report_error(error)
        elif self._previous_hook is not None:
            self._previous_hook(error_type, error, traceback)
