"""Prompts and saves when the window is closed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

from napari_dycon.application.activities import Activity
from napari_dycon.application.prompts import UserPrompt
from napari_dycon.errors import DyconError
from napari_dycon.session import Session
from napari_dycon.widgets.dialogs.prompt import show_prompt


class CloseHandler(QObject):
    """Watches napari's main window, which alone receives the close event.

    Labels are saved before every close. A user who closes the window during a run is asked whether
    to stop it; when a program closes the window, the run continues.

    Parameters
    ----------
    on_closed : called after the window has closed; closing can be cancelled
    list_tasks : tasks to ask about, and to cancel, instead of napari, whose question does not say
        what would be lost; ``None`` leaves the question to napari. Tasks that are not among them
        are completed after the window has closed
    """

    def __init__(
        self,
        main_window: QWidget,
        session: Session,
        on_closed: Callable[[], None],
        list_tasks: Callable[[], list[Activity] | None] = lambda: None,
    ) -> None:
        super().__init__()  # no child of the window, which it would keep alive
        self.main_window = main_window
        self.is_closing = False
        self._session = session
        self._on_closed = on_closed
        self._list_tasks = list_tasks
        self._has_warned = False
        self._is_prompting = False
        main_window.installEventFilter(self)
        # napari distinguishes a close by the user (menu, Ctrl+W, Ctrl+Q) from
        # one by a program only through this argument, which it does not pass on.
        self._original_close: Callable[..., Any] = main_window.close
        main_window.close = self._handle_close

    @property
    def is_visible(self) -> bool:
        """Whether the window is visible and not closing."""
        return not self.is_closing and self.main_window.isVisible()

    def uninstall(self) -> None:
        """Stop watching the window."""
        self.main_window.removeEventFilter(self)
        if self.main_window.__dict__.get("close") == self._handle_close:
            del self.main_window.close

    def eventFilter(self, _: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Save and prompt before the window closes; release it only afterwards."""
        if event.type() == QEvent.Type.Close:
            if self._is_prompting or (event.spontaneous() and self._asks):
                # By the window's own button. The prompt runs after the event: the desktop
                # session may end, or a program may remove the window meanwhile. napari asks
                # only while it handles such an event.
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
        if confirm_need and self._asks:
            if self._is_prompting or not self._confirm_close():
                return None
            confirm_need = False  # one question is enough
        return self._original_close(quit_app, confirm_need)

    @property
    def _asks(self) -> bool:
        """Whether it is not left to napari to ask before a user closes the window."""
        return self._list_tasks() is not None or self._can_stop_run

    @property
    def _can_stop_run(self) -> bool:
        """Whether there is a run that this window may stop."""
        session = self._session
        is_read_only = session.project is not None and bool(session.project.read_only_reason)
        is_controlled_elsewhere = is_read_only or bool(session.run_controller.remote_host)
        return session.status.phase not in ("idle", "stopping") and not is_controlled_elsewhere

    def _save_all(self) -> bool:
        """Save the label.

        If that fails, the first close is refused, and the second one writes a recovery copy.
        """
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
        """Ask about an active run and about tasks; return whether the window may close."""
        prompts = [self._ask_about_run] if self._can_stop_run else []
        if tasks := self._list_tasks():
            prompts.append(partial(self._ask_about_tasks, tasks))
        self._is_prompting = True
        try:
            return all(prompt() for prompt in prompts)
        finally:
            self._is_prompting = False

    def _ask_about_tasks(self, tasks: list[Activity]) -> bool:
        titles = ", ".join(dict.fromkeys(task.title for task in tasks))
        text = (
            f"{titles}: not finished yet, and canceled if the window is closed. Labels are saved."
        )

        def cancel_tasks() -> None:
            for task in tasks:
                task.cancel()

        prompt = UserPrompt("A task is running", text, (("Cancel it and close", cancel_tasks),))
        return show_prompt(self.main_window, self._session, prompt)

    def _ask_about_run(self) -> bool:
        session = self._session

        def stop() -> None:
            if self._can_stop_run:  # it may have ended during the prompt
                session.stop()

        title, keep = "Training is running", "Keep training"
        text = (
            f"Run {session.status.run} is still training. It can continue after this window is "
            "closed; reopen the project to see its progress."
        )
        if session.status.phase == "paused":
            title, keep = "Training is paused", "Keep it paused"
            text = (
                f"Run {session.status.run} is paused and stays so after this window is closed; "
                "reopen the project to resume it."
            )
        prompt = UserPrompt(title, text, ((keep, lambda: None), ("Stop and save", stop)))
        return show_prompt(self.main_window, session, prompt)
