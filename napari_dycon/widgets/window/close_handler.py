"""What a person who closes the window is asked first, and what is saved before it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

from napari_dycon.application.prompts import UserPrompt
from napari_dycon.errors import DyconError
from napari_dycon.session import Session
from napari_dycon.widgets.dialogs.prompt import ask


class CloseWatch(QObject):
    """Watches the main window of napari, because only it is told to close.

    Labels are saved before any close. A person who closes the window while a run is at work is
    asked what becomes of it; a program that closes it is not, and the run goes on.

    Parameters
    ----------
    closed : called once the window has really gone; a close can be cancelled
    """

    def __init__(self, main: QWidget, session: Session, closed: Callable[[], None]) -> None:
        super().__init__()  # no child of the window, which it would keep alive
        self.main = main
        self.closing = False
        self._session = session
        self._closed = closed
        self._warned = False
        self._asking = False
        main.installEventFilter(self)
        # napari tells a person's wish to close (menu, Ctrl+W, Ctrl+Q) from a program's by this
        # argument, and hands it no further.
        self._close: Callable[..., Any] = main.close
        main.close = self._close_asked

    @property
    def shown(self) -> bool:
        """Whether the window is there to be drawn."""
        return not self.closing and self.main.isVisible()

    def release(self) -> None:
        """Watch no longer."""
        self.main.removeEventFilter(self)
        if self.main.__dict__.get("close") == self._close_asked:
            del self.main.close

    def eventFilter(self, _: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Save and ask before the window closes; let go only once it has."""
        if event.type() == QEvent.Type.Close:
            if self._asking or (event.spontaneous() and self._at_work):
                # By the window's own button. Nothing waits inside of an event: the session of the
                # desktop may want to end, and a program may take the window away meanwhile.
                event.ignore()
                if not self._asking:
                    QTimer.singleShot(0, self._ask_then_close)
                return True
            if not self._saved():
                event.ignore()
                return True
            self.closing = True
        elif event.type() == QEvent.Type.Hide and self.closing:
            self._closed()
        return False

    def _ask_then_close(self) -> None:
        if not self._asking and self._may_close():
            self._close()

    def _close_asked(self, quit_app: bool = False, confirm_need: bool = False) -> Any:
        if confirm_need and self._at_work:
            if self._asking or not self._may_close():
                return None
            confirm_need = False  # one question is enough
        return self._close(quit_app, confirm_need)

    @property
    def _at_work(self) -> bool:
        """Whether there is a run that this window may decide about."""
        session = self._session
        only_shown = session.project is not None and bool(session.project.read_only_reason)
        others = only_shown or bool(session.run_controller.remote_host)
        return session.status.phase not in ("idle", "stopping") and not others

    def _saved(self) -> bool:
        """Save the label; when that fails, refuse the first close, and rescue it at the second."""
        session = self._session
        try:
            session.flush()
        except DyconError as error:
            if not self._warned:
                self._warned = True
                session.message.emit(
                    "error", f"Not closed, your last strokes are not saved: {error}"
                )
                return False
            try:
                session.save_recovery_copy()
            except DyconError as failed:
                session.message.emit(
                    "error", f"Not closed, your last strokes could not be kept anywhere: {failed}"
                )
                return False
        return True

    def _may_close(self) -> bool:
        """Ask what becomes of the run at work; whether the window may close then."""
        session = self._session

        def stop() -> None:
            if self._at_work:  # it may have ended while it was asked
                session.stop()

        question = UserPrompt(
            "Training is at work",
            f"Run {session.status.run} is being trained. It can go on without this window: open "
            "the project again, and you see how far it is.",
            (("Keep training", lambda: None), ("Stop and keep what it learned", stop)),
        )
        self._asking = True
        try:
            return ask(self.main, session, question)
        finally:
            self._asking = False
