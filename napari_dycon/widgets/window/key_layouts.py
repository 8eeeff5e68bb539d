"""Keys of any keyboard layout as the letters, digits and brackets that shortcuts are made of.

A shortcut is the letter that is printed on a key, as everywhere. Where a key has no Latin letter
(Russian, Greek, Hebrew …), no digit without Shift (French), or no bracket (German, Swiss), its
position decides: it counts as what a US keyboard has there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent

# Rows of a US keyboard, and the code of their first key on X11 and Wayland.
X11_ROWS = ((10, "1234567890"), (24, "QWERTYUIOP[]"), (38, "ASDFGHJKL"), (52, "ZXCVBNM"))
WINDOWS_OFFSET = -8  # scan codes of Windows against those of X11
# Virtual key codes of macOS, which are positions, too.
MACOS_KEYS = "ASDFHGZXCVBQWERYT1234659780]OU[IPLJKNM"  # in the order of their virtual key codes
MACOS_CODES = (*range(10), *range(11, 24), 25, 26, 28, *range(29, 36), 37, 38, 40, 45, 46)
US_KEYS_BY_MACOS_CODE = dict(zip(MACOS_CODES, MACOS_KEYS, strict=True))
US_KEYS_BY_X11_CODE = {
    first + number: character for first, row in X11_ROWS for number, character in enumerate(row)
}
MODIFIERS = (
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.AltModifier,
    Qt.KeyboardModifier.MetaModifier,
)
BRACKETS = {"[": "BracketLeft", "]": "BracketRight"}
LAST_ASCII = 0x7F
FIRST_SPECIAL_KEY = 0x01000000  # Qt's Escape, arrows, function keys …


@dataclass(frozen=True)
class KeyPress:
    """A key of Qt and its modifiers, independent of the layout."""

    key: int
    has_shift: bool = False
    has_control: bool = False
    has_alt: bool = False
    has_meta: bool = False

    @classmethod
    def parse(cls, text: str) -> KeyPress:
        """Parse napari's notation, such as "N", "Shift-N", "Control-1" or "F1"."""
        *modifiers, name = text.split("-")
        key = getattr(Qt.Key, f"Key_{BRACKETS.get(name, name)}")
        return cls(
            get_number(key),
            has_shift="Shift" in modifiers,
            has_control="Control" in modifiers,
            has_alt="Alt" in modifiers,
            has_meta="Meta" in modifiers,
        )


def translate_key(event: QKeyEvent, platform: str = sys.platform) -> KeyPress:
    """Translate a key event of any layout.

    Parameters
    ----------
    platform : as ``sys.platform``; it tells what the native codes of a key mean
    """
    key, modifiers = get_number(event.key()), event.modifiers()
    shift, control, alt, meta = (bool(modifiers & modifier) for modifier in MODIFIERS)
    by_position = find_us_key(event, platform)
    if is_bracket(key):
        return KeyPress(key)  # AltGr and a digit on German keyboards
    if by_position is not None and needs_position(key, by_position):
        key = ord(by_position)
        if is_bracket(key):
            return KeyPress(key)
    if key <= LAST_ASCII and chr(key).isdigit():
        shift = False  # French keyboards have digits with Shift
    return KeyPress(key, shift, control, alt, meta)


def is_bracket(key: int) -> bool:
    """Whether a key is "[" or "]"."""
    return key <= LAST_ASCII and chr(key) in "[]"


def needs_position(key: int, us_key: str) -> bool:
    """Whether the position of a key counts, and not what is printed on it."""
    if key <= LAST_ASCII and chr(key).isalnum():
        return False
    if us_key.isalpha():
        return LAST_ASCII < key < FIRST_SPECIAL_KEY  # other alphabets, but no punctuation
    return True


def find_us_key(event: QKeyEvent, platform: str) -> str | None:
    """Return what a US keyboard has at the position of a key; ``None`` for other keys."""
    if platform == "darwin":
        return US_KEYS_BY_MACOS_CODE.get(event.nativeVirtualKey())
    offset = WINDOWS_OFFSET if platform == "win32" else 0
    return US_KEYS_BY_X11_CODE.get(event.nativeScanCode() - offset)


def get_number(key: Qt.Key | int) -> int:
    """Return the number of a key, which is an enumeration in Qt 6."""
    return int(getattr(key, "value", key))
