"""Shortcuts that act in the whole window, whatever has the focus.

The dispatcher sees the keys of a window before any widget does. Fields for text and numbers keep
their keys, and so do dialogs. Keys that belong to napari, such as those of its painting tools, are
passed to the canvas.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QTabBar,
    QTextEdit,
    QWidget,
)

from napari_dycon.widgets.window.key_layouts import KeyPress, get_number, translate_key

TEXT_FIELDS = (QLineEdit, QTextEdit, QPlainTextEdit, QAbstractSpinBox)
# These use the arrows themselves.
ARROW_WIDGETS = (QAbstractSlider, QTabBar, QComboBox)
ARROWS = {get_number(key) for key in (Qt.Key.Key_Left, Qt.Key.Key_Right)}
# These act again and again while they are held; others would flicker, or open case after case.
REPEATED = ARROWS | {get_number(key) for key in (Qt.Key.Key_BracketLeft, Qt.Key.Key_BracketRight)}
PASS_ON = object()  # returned by an action that leaves its key to the widgets
NAPARI_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789[]"


class _WindowFilter(QObject):
    """Sees the keys of one window before its widgets do."""

    def __init__(self, top: QWidget, dispatcher: KeyDispatcher) -> None:
        super().__init__(dispatcher)
        # napari expects that nothing keeps its widgets once their window is closed.
        self._top = weakref.ref(top)
        self._dispatcher = dispatcher
        self._window = top.windowHandle()
        self._window.installEventFilter(self)

    def eventFilter(self, _: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Pass key events to the dispatcher; ``True`` keeps them from the widgets."""
        top = self._top()
        if top is None or not isinstance(event, QKeyEvent):
            return False
        return self._dispatcher.handle(event, top.focusWidget())

    def is_of(self, top: QWidget) -> bool:
        """Whether this is the filter of a window."""
        return self._top() is top

    def is_current(self, top: QWidget) -> bool:
        """Whether it sees the keys of a window: Qt makes another one when a dock floats again."""
        return self.is_of(top) and self._window is top.windowHandle()

    def close(self) -> None:
        """Remove the filter."""
        with contextlib.suppress(RuntimeError):  # the window is gone already
            self._window.removeEventFilter(self)


class KeyDispatcher(QObject):
    """Runs shortcuts for the keys of the windows that ``watch`` was called for.

    Parameters
    ----------
    shortcuts : actions by key
    get_canvas : returns the canvas that receives the keys of napari
    """

    def __init__(
        self,
        shortcuts: Mapping[KeyPress, Callable[[], object]],
        get_canvas: Callable[[], QWidget],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._shortcuts = dict(shortcuts)
        self._get_canvas = get_canvas
        self._filters: list[_WindowFilter] = []
        self._handled: set[int] = set()  # keys whose release is handled, too
        self._forwarded: dict[int, KeyPress] = {}  # pressed keys that were passed to the canvas

    def watch(self, widget: QWidget) -> None:
        """See the keys of the window of a widget first."""
        top = widget.window()
        if top.windowHandle() is None or any(f.is_current(top) for f in self._filters):
            return
        for outdated in [f for f in self._filters if f.is_of(top)]:
            outdated.close()
            self._filters.remove(outdated)
        self._filters.append(_WindowFilter(top, self))

    def close(self) -> None:
        """Leave all keys to the widgets."""
        for window_filter in self._filters:
            window_filter.close()
        self._filters.clear()

    def handle(self, event: QKeyEvent, focus: QWidget | None) -> bool:
        """Handle a key event of a window; return whether no widget should see it."""
        if QApplication.activePopupWidget() is not None:
            return False
        if event.type() == QEvent.Type.KeyPress:
            return self._on_press(event, focus)
        if event.type() == QEvent.Type.KeyRelease:
            return self._on_release(event)
        return False

    def _on_press(self, event: QKeyEvent, focus: QWidget | None) -> bool:
        if is_text_field(focus):
            return False
        press = translate_key(event)
        action = self._shortcuts.get(press)
        if action is not None:
            is_held = event.isAutoRepeat() and get_number(event.key()) in self._handled
            if is_held and press.key not in REPEATED:
                return True
            if press.key in ARROWS and isinstance(focus, ARROW_WIDGETS):
                return False
            if action() is PASS_ON:
                return False
            self._handled.add(get_number(event.key()))
            return True
        canvas = self._get_canvas()
        if not is_napari_key(press) or (focus is canvas and is_as_typed(press, event)):
            return False
        self._forwarded[get_number(event.key())] = press
        send_key(canvas, event, press)
        return True

    def _on_release(self, event: QKeyEvent) -> bool:
        key = get_number(event.key())
        if key in self._handled:
            if not event.isAutoRepeat():  # X11 releases a key that is held again and again
                self._handled.discard(key)
            return True
        press = self._forwarded.pop(key, None)
        if press is not None:
            send_key(self._get_canvas(), event, press)
        return press is not None


def is_text_field(widget: QWidget | None) -> bool:
    """Whether a widget takes text or numbers that are typed."""
    if isinstance(widget, QComboBox):
        return bool(widget.isEditable())
    if isinstance(widget, QLineEdit) and widget.isReadOnly():
        return False
    return isinstance(widget, TEXT_FIELDS)


def is_napari_key(press: KeyPress) -> bool:
    """Whether a key may be one of napari's: letters, digits and brackets without Alt or Meta."""
    return (
        press.key < 0x80
        and chr(press.key) in NAPARI_CHARACTERS
        and not (press.has_alt or press.has_meta)
    )


def is_as_typed(press: KeyPress, event: QKeyEvent) -> bool:
    """Whether a key needed no translation, so that napari understands the event itself."""
    return press.key == get_number(event.key())


def send_key(canvas: QWidget, event: QKeyEvent, press: KeyPress) -> None:
    """Send a translated key event to the canvas."""
    modifiers = Qt.KeyboardModifier.NoModifier
    if press.has_shift:
        modifiers |= Qt.KeyboardModifier.ShiftModifier
    if press.has_control:
        modifiers |= Qt.KeyboardModifier.ControlModifier
    character = chr(press.key)
    text = character if press.has_shift else character.lower()
    QApplication.sendEvent(
        canvas,
        QKeyEvent(
            event.type(), press.key, modifiers, "" if press.has_control else text,
            event.isAutoRepeat(),
        ),
    )  # fmt: skip
