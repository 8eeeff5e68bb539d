"""Lines of ``events.jsonl``, read as what a window can rely on.

The file comes with a project from anywhere: a line may be torn by a crash, or say that a step's
loss is a list. Such lines count as not there; what a line leaves out is filled in. The kinds are
described in ``project/runs/events.py``. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_dycon.core.untrusted import parse_integer, parse_json, parse_number

Event = dict[str, Any]
MAX_LINE_BYTES = 2**18  # bytes
MAX_TEXT_LENGTH = 4000  # letters
MAX_NUMBER = 10**12


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH


def _is_count(value: object) -> bool:
    return parse_integer(value, 0, MAX_NUMBER) is not None


def _is_number(value: object) -> bool:
    return parse_number(value, -MAX_NUMBER, MAX_NUMBER) is not None


def _is_number_or_none(value: object) -> bool:
    return value is None or _is_number(value)


def _is_number_mapping(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_number_or_none, value.values()))


# For each kind its fields with what they may be, and what stands in for one that is left out.
FieldRule = tuple[Callable[[object], bool], object]
_CASE_COUNT: FieldRule = (_is_count, 0)
EVENT_FIELDS: dict[str, dict[str, FieldRule]] = {
    "started": {
        "run": (_is_text, ""),
        "method": (_is_text, ""),
        "device_reason": (_is_text, ""),
        "labeled": _CASE_COUNT,
        "unlabeled": _CASE_COUNT,
        "validation": _CASE_COUNT,
        "time_limit": (_is_number_or_none, None),
    },
    "preparing": {"done": _CASE_COUNT, "total": _CASE_COUNT},
    "warps": {"done": _CASE_COUNT, "total": _CASE_COUNT},
    "step": {
        "step": (_is_count, 0),
        "progress": (lambda value: parse_number(value, 0, 1) is not None, 0.0),
        "loss": (_is_number_or_none, None),
        "parts": (_is_number_mapping, {}),
        "remaining": (_is_number_or_none, None),
    },
    "validation": {
        "step": (_is_count, 0),
        "dice": (_is_number_mapping, {}),
        "mean": (_is_number_or_none, None),
    },
    "preview": {"case": (_is_text, "")},
    "warning": {"message": (_is_text, "")},
    "failed": {"message": (_is_text, "")},
    "finished": {
        "step": (_is_count, 0),
        "elapsed": (_is_number, 0.0),
        "dice": (_is_number_or_none, None),
    },
}
EVENT_FIELDS["stopped"] = EVENT_FIELDS["finished"]


def parse_event(line: bytes) -> Event | None:
    """Event of a line, with every field that its kind has; ``None`` where it is none.

    Kinds that are not known, as a newer version may write them, are handed on as they are.
    """
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        event = parse_json(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not _is_text(event.get("event")):
        return None
    fields = EVENT_FIELDS.get(str(event["event"]), {})
    if not all(fits(event[name]) for name, (fits, _) in fields.items() if name in event):
        return None
    missing = {name: default for name, (_, default) in fields.items() if name not in event}
    return {**event, **missing}
