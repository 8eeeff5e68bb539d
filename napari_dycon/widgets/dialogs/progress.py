"""Long reading and writing where the caller has to wait for it, in a window that stays alive.

A reader or writer of a plugin has to come back with the result. The work runs in a thread; until
it is done the window draws itself but takes no input, and a dialog shows how far it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication, QMainWindow, QProgressDialog, QWidget

from napari_dycon.widgets.window.helpers import plain_label

T = TypeVar("T")
Tell = Callable[[int, int], None]
LOOK_MS = 15
PATIENCE_S = 0.4  # before a dialog says that something takes long


class CancelledError(Exception):
    """A person does not want to wait any longer."""


def main_window() -> QWidget | None:
    """Window to ask and to tell in; ``None`` in scripts without one, and in other threads."""
    app = QApplication.instance()
    if app is None or threading.current_thread() is not threading.main_thread():
        return None
    windows = [w for w in app.topLevelWidgets() if isinstance(w, QMainWindow) and w.isVisible()]
    active = app.activeWindow()
    return active if active in windows else next(iter(windows), None)


def wait_for(
    title: str, work: Callable[[Tell], T], window: QWidget | None, *, can_cancel: bool = True
) -> T:
    """Do ``work`` in a thread and return what it returns, or raise what it raises.

    Parameters
    ----------
    title : what takes long, to be read by a person
    work : is called with a function that takes how much is done, and of how much
    window : over which progress is shown; without one, ``work`` is simply done
    can_cancel : offer a person to leave it; work that changes nothing may be left

    Raises
    ------
    CancelledError
        A person left it. The thread ends when it next tells how far it is, or with its work.
    """
    if window is None:
        return work(lambda _done, _total: None)
    state = _State()

    def run() -> None:
        try:
            state.result = work(state.tell)
        except BaseException as error:  # it is raised again where somebody waits for it
            state.error = error
        state.ended.set()

    threading.Thread(target=run, name=title, daemon=True).start()
    _keep_alive(title, state, window, can_cancel)
    if state.left.is_set():
        raise CancelledError
    if state.error is not None:
        raise state.error
    result: T = state.result
    return result


class _State:
    """What a thread and those who wait for it know of each other."""

    def __init__(self) -> None:
        self.done, self.total = 0, 0
        self.ended, self.left = threading.Event(), threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def tell(self, done: int, total: int) -> None:
        if self.left.is_set():
            raise CancelledError
        self.done, self.total = done, total


def _keep_alive(title: str, state: _State, window: QWidget, can_cancel: bool) -> None:
    """Let the window live until the thread has ended or was left."""
    loop, timer = QEventLoop(), QTimer()
    dialog: QProgressDialog | None = None
    begun = time.monotonic()

    def look() -> None:
        late = dialog is None and time.monotonic() - begun > PATIENCE_S
        if late or state.ended.is_set() or state.left.is_set():
            loop.quit()
        elif dialog is not None:
            dialog.setMaximum(state.total)
            dialog.setValue(state.done)

    timer.timeout.connect(look)
    timer.start(LOOK_MS)
    # Input waits until there is a dialog, which keeps it from the windows below.
    loop.exec_(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
    if not state.ended.is_set():
        dialog = _dialog(title, state, window, can_cancel)
        dialog.show()
        loop.exec_()
        dialog.hide()  # closing it counts as cancelling
        dialog.deleteLater()
    timer.stop()


def _dialog(title: str, state: _State, window: QWidget, can_cancel: bool) -> QProgressDialog:
    dialog = QProgressDialog("", "Cancel", 0, 0, window)
    dialog.setLabel(plain_label(title))
    dialog.setWindowTitle("DyCON")
    dialog.setWindowModality(Qt.WindowModality.ApplicationModal)
    dialog.setMinimumWidth(360)
    dialog.setMinimumDuration(0)
    dialog.setAutoClose(False)
    dialog.setAutoReset(False)
    if can_cancel:
        dialog.canceled.connect(state.left.set)
    else:
        dialog.setCancelButton(None)
        dialog.setWindowFlag(Qt.WindowType.WindowCloseButtonHint, False)
    return dialog
