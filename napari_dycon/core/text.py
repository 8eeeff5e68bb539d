"""Escaping of untrusted text (names of cases, classes, series, files) for display.

A name may contain control sequences of terminals, or HTML that Qt would render, with images to
load. Neither rich nor Qt is imported here.
"""

from __future__ import annotations

import re

# C0 except tab and newline, DEL, C1, line separators, direction marks, surrogates.
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_TAG_START = re.compile(r"<(?=[A-Za-z/!?])|&(?=[A-Za-z#])")
ZERO_WIDTH_SPACE = "\u200b"  # zero-width space


def escape_control_characters(text: object) -> str:
    r"""Escape control characters of terminals as ``\x1b`` and the like.

    Direction marks are escaped as well.
    """
    return _CONTROL_CHARACTERS.sub(lambda hit: repr(hit[0])[1:-1], str(text))


def escape_json(text: str) -> str:
    """Escape the same characters in JSON text by their JSON code."""
    return _CONTROL_CHARACTERS.sub(lambda hit: f"\\u{ord(hit[0]):04x}", text)


def escape_rich_text(text: object) -> str:
    """Prevent Qt from detecting HTML where text cannot be marked as plain.

    Tooltips and napari's notifications guess the format. A zero-width space is inserted into
    everything that looks like a tag.
    """
    return _TAG_START.sub(lambda hit: hit[0] + ZERO_WIDTH_SPACE, escape_control_characters(text))
