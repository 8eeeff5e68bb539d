"""What a person who closes the window is asked first, and what is saved before it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

from napari_dycon.application.prompts import UserPrompt
from napari_dycon.errors import DyconError
from napari_dycon.session import Session
from napari_dycon.widgets.dialogs.prompt import show_prompt


class CloseHandler(QObject):
    """Watches the main window of napari, because only it is told to close.

    Labels are saved before any close. A person who closes the window while a run is at work is
    asked what becomes of it; a program that closes it is not, and the run goes on.

    Parameters
    ----------
    on_closed : called once the window has really gone; a close can be cancelled
    """

    def __init__(
        self, main_window: QWidget, session: Session, on_closed: Callable[[], None]
    ) -> None:
        super().__init__()  # no child of the window, which it would keep alive
        self.main_window = main_window
        self.is_closing = False
        self._session = session
        self._on_closed = on_closed
        self._has_warned = False
        self._is_prompting = False
        main_window.installEventFilter(self)
        # napari tells a person's wish to close (menu, Ctrl+W, Ctrl+Q) from a program's by this
        # argument, and hands it no further.
        self._original_close: Callable[..., Any] = main_window.close
        main_window.close = self._handle_close

    @property
    def is_visible(self) -> bool:
        """Whether the window is there to be drawn."""
        return not self.is_closing and self.main_window.isVisible()

    def uninstall(self) -> None:
        """Watch no longer."""
        self.main_window.removeEventFilter(self)
        if self.main_window.__dict__.get("close") == self._handle_close:
            del self.main_window.close

    def eventFilter(self, _: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Save and ask before the window closes; let go only once it has."""
        if event.type() == QEvent.Type.Close:
            if self._is_prompting or (event.spontaneous() and self._can_stop_run):
                # By the window's own button. Nothing waits inside of an event: the session of the
                # desktop may want to end, and a program may take the window away meanwhile.
                event.ignore()
                if not self._is_prompting:
                    QTimer.singleShot(0, self._confirm_then_close)
                return True
            if not self._save_all():
                event.ignore()
                return True
            self.is_closing = True
        elif event.type() == QEvent.Type.Hide and self.is_closing:
            self._on_closed()
        return False

    def _confirm_then_close(self) -> None:
        if not self._is_prompting and self._confirm_close():
            self._original_close()

    def _handle_close(self, quit_app: bool = False, confirm_need: bool = False) -> Any:
        if confirm_need and self._can_stop_run:
            if self._is_prompting or not self._confirm_close():
                return None
            confirm_need = False  # one question is enough
        return self._original_close(quit_app, confirm_need)

    @property
    def _can_stop_run(self) -> bool:
        """Whether there is a run that this window may decide about."""
        session = self._session
        is_read_only = session.project is not None and bool(session.project.read_only_reason)
        is_controlled_elsewhere = is_read_only or bool(session.run_controller.remote_host)
        return session.status.phase not in ("idle", "stopping") and not is_controlled_elsewhere

    def _save_all(self) -> bool:
        """Save the label; when that fails, refuse the first close, and rescue it at the second."""
        session = self._session
        try:
            session.flush()
        except DyconError as error:
            if not self._has_warned:
                self._has_warned = True
                session.message.emit(
                    "error",
                    f"The window stays open because your last edits could not be saved: {error}",
                )
                return False
            try:
                session.save_recovery_copy()
            except DyconError as rescue_error:
                session.message.emit(
                    "error",
                    "The window stays open because your last edits could not be saved anywhere: "
                    f"{rescue_error}",
                )
                return False
        return True

    def _confirm_close(self) -> bool:
        """Ask what becomes of the run at work; whether the window may close then."""
        session = self._session

        def stop() -> None:
            if self._can_stop_run:  # it may have ended while it was asked
                session.stop()

        prompt = UserPrompt(
            "Training is running",
            f"Run {session.status.run} is still training. It can continue after this window is "
            "closed; reopen the project to see its progress.",
            (("Keep training", lambda: None), ("Stop and save", stop)),
        )
        self._is_prompting = True
        try:
            return show_prompt(self.main_window, session, prompt)
        finally:
            self._is_prompting = False
