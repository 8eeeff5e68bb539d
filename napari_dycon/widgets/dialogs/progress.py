"""Blocking reads and writes with a progress dialog, in a window that stays responsive.

A reader or writer of a plugin has to return its result. The work runs in a thread; meanwhile the
window is redrawn but accepts no input, and a dialog shows the progress.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication, QMainWindow, QProgressDialog, QWidget

from napari_dycon.errors import CancelledError
from napari_dycon.widgets.window.helpers import make_plain_label

__all__ = ["CancelledError", "OnProgress", "find_main_window", "run_with_dialog"]

T = TypeVar("T")
OnProgress = Callable[[int, int], None]
POLL_MS = 15
DIALOG_DELAY_S = 0.4  # before the dialog appears


def find_main_window() -> QWidget | None:
    """Return the window for dialogs; ``None`` in scripts without one and in other threads."""
    app = QApplication.instance()
    if app is None or threading.current_thread() is not threading.main_thread():
        return None
    windows = [w for w in app.topLevelWidgets() if isinstance(w, QMainWindow) and w.isVisible()]
    active = app.activeWindow()
    return active if active in windows else next(iter(windows), None)


def run_with_dialog(
    title: str, task: Callable[[OnProgress], T], window: QWidget | None, *, can_cancel: bool = True
) -> T:
    """Run ``task`` in a thread and return its result or raise its error.

    Parameters
    ----------
    title : description of the task for the user
    task : called with a progress callback ``(done, total)``
    window : parent of the dialog; without one, ``task`` runs directly
    can_cancel : let the user cancel; only for tasks that change nothing

    Raises
    ------
    CancelledError
        The user cancelled. The thread ends at its next progress report or when the task is done.
    """
    if window is None:
        return task(lambda _done, _total: None)
    state = _TaskState()

    def run() -> None:
        try:
            state.result = task(state.report_progress)
        except BaseException as error:  # noqa: BLE001 - re-raised in the caller
            state.error = error
        state.finished.set()

    threading.Thread(target=run, name=title, daemon=True).start()
    _run_event_loop(title, state, window, can_cancel)
    if state.cancelled.is_set():
        raise CancelledError
    if state.error is not None:
        raise state.error
    result: T = state.result
    return result


class _TaskState:
    """State shared by the thread and its caller."""

    def __init__(self) -> None:
        self.done, self.total = 0, 0
        self.finished, self.cancelled = threading.Event(), threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def report_progress(self, done: int, total: int) -> None:
        if self.cancelled.is_set():
            raise CancelledError
        self.done, self.total = done, total


def _run_event_loop(title: str, state: _TaskState, window: QWidget, can_cancel: bool) -> None:
    """Process window events until the thread has ended or was cancelled."""
    loop, timer = QEventLoop(), QTimer()
    dialog: QProgressDialog | None = None
    start = time.monotonic()

    def poll() -> None:
        is_late = dialog is None and time.monotonic() - start > DIALOG_DELAY_S
        if is_late or state.finished.is_set() or state.cancelled.is_set():
            loop.quit()
        elif dialog is not None:
            dialog.setMaximum(state.total)
            dialog.setValue(state.done)

    timer.timeout.connect(poll)
    timer.start(POLL_MS)
    # User input is deferred until the modal dialog blocks the windows below.
    loop.exec_(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
    if not state.finished.is_set():
        dialog = _make_dialog(title, state, window, can_cancel)
        dialog.show()
        loop.exec_()
        dialog.hide()  # closing it counts as cancelling
        dialog.deleteLater()
    timer.stop()


def _make_dialog(
    title: str, state: _TaskState, window: QWidget, can_cancel: bool
) -> QProgressDialog:
    dialog = QProgressDialog("", "Cancel", 0, 0, window)
    dialog.setLabel(make_plain_label(title))
    dialog.setWindowTitle("DyCON")
    dialog.setWindowModality(Qt.WindowModality.ApplicationModal)
    dialog.setMinimumWidth(360)
    dialog.setMinimumDuration(0)
    dialog.setAutoClose(False)
    dialog.setAutoReset(False)
    if can_cancel:
        dialog.canceled.connect(state.cancelled.set)
    else:
        dialog.setCancelButton(None)
        dialog.setWindowFlag(Qt.WindowType.WindowCloseButtonHint, False)
    return dialog
