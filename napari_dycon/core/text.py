"""Text of anybody (names of cases, classes, series, files) as text, wherever it is shown.

A name may hold what a terminal takes for a command, or what Qt takes for a page with pictures to
load. Neither rich nor Qt is imported here.
"""

from __future__ import annotations

import re

# C0 but for tab and newline, DEL, C1, separators of lines, marks of direction, halves of letters.
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_TAG_START = re.compile(r"<(?=[A-Za-z/!?])|&(?=[A-Za-z#])")
ZERO_WIDTH_SPACE = "\u200b"  # a space without width


def escape_control_characters(text: object) -> str:
    """Text in which nothing commands a terminal: control characters become ``\\x1b`` and the like.

    Marks that turn the direction of writing are shown, too.
    """
    return _CONTROL_CHARACTERS.sub(lambda hit: repr(hit[0])[1:-1], str(text))


def escape_json(text: str) -> str:
    """JSON text with the same characters written as numbers, as JSON can."""
    return _CONTROL_CHARACTERS.sub(lambda hit: f"\\u{ord(hit[0]):04x}", text)


def escape_rich_text(text: object) -> str:
    """Text that Qt does not take for HTML, for where it cannot be told that it is plain.

    Tooltips and napari's notifications guess. What looks like a tag gets a space without width.
    """
    return _TAG_START.sub(lambda hit: hit[0] + ZERO_WIDTH_SPACE, escape_control_characters(text))
