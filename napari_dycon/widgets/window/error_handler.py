"""Errors that a slot of ours raises: told in a sentence, with a report saved, never a traceback.

napari shows what no code handles as a notification with a button for its traceback. That is right
for programmers; here the person gets one sentence, and the programmers the report. Only errors that
passed through this package are taken over, and only from napari's own handler.
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
    """Stands before napari's handler of errors while a panel is there."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._previous_hook: ExceptHook | None = None
        self._is_uninstalled = False

    def install(self) -> None:
        """Begin; napari puts its own handler in place when its event loop starts, so after that."""
        current_hook = sys.excepthook
        if (
            not self._is_uninstalled
            and getattr(current_hook, "__self__", None) is notification_manager
        ):
            self._previous_hook = current_hook
            sys.excepthook = self.handle

    def uninstall(self) -> None:
        """Give napari its handler back."""
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
        """Tell of an error of ours in a sentence; hand on everything else."""
        if isinstance(error, Exception) and raised_in_package(traceback):
            self._session.report_error(error)
        elif self._previous_hook is not None:
            self._previous_hook(error_type, error, traceback)
