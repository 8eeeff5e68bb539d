"""Lines of ``events.jsonl``, read as what a window can rely on.

The file comes with a project from anywhere: a line may be torn by a crash, or say that a step's
loss is a list. Such lines count as not there; what a line leaves out is filled in. The kinds are
described in ``project/runs/events.py``. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_dycon.core.untrusted import loads, number, whole

Event = dict[str, Any]
MOST_LINE = 2**18  # bytes
MOST_TEXT = 4000  # letters
MOST = 10**12


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MOST_TEXT


def _count(value: object) -> bool:
    return whole(value, 0, MOST) is not None


def _number(value: object) -> bool:
    return number(value, -MOST, MOST) is not None


def _number_or_none(value: object) -> bool:
    return value is None or _number(value)


def _numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(_number_or_none, value.values()))


# For each kind its fields with what they may be, and what stands in for one that is left out.
Field = tuple[Callable[[object], bool], object]
_CASES: Field = (_count, 0)
FIELDS: dict[str, dict[str, Field]] = {
    "started": {
        "run": (_text, ""),
        "method": (_text, ""),
        "device_reason": (_text, ""),
        "labeled": _CASES,
        "unlabeled": _CASES,
        "validation": _CASES,
        "time_limit": (_number_or_none, None),
    },
    "preparing": {"done": _CASES, "total": _CASES},
    "warps": {"done": _CASES, "total": _CASES},
    "step": {
        "step": (_count, 0),
        "progress": (lambda value: number(value, 0, 1) is not None, 0.0),
        "loss": (_number_or_none, None),
        "parts": (_numbers, {}),
        "remaining": (_number_or_none, None),
    },
    "validation": {
        "step": (_count, 0),
        "dice": (_numbers, {}),
        "mean": (_number_or_none, None),
    },
    "preview": {"case": (_text, "")},
    "warning": {"message": (_text, "")},
    "failed": {"message": (_text, "")},
    "finished": {
        "step": (_count, 0),
        "elapsed": (_number, 0.0),
        "dice": (_number_or_none, None),
    },
}
FIELDS["stopped"] = FIELDS["finished"]


def parse_line(line: bytes) -> Event | None:
    """Event of a line, with every field that its kind has; ``None`` where it is none.

    Kinds that are not known, as a newer version may write them, are handed on as they are.
    """
    if len(line) > MOST_LINE:
        return None
    try:
        event = loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not _text(event.get("event")):
        return None
    fields = FIELDS.get(str(event["event"]), {})
    if not all(fits(event[name]) for name, (fits, _) in fields.items() if name in event):
        return None
    missing = {name: default for name, (_, default) in fields.items() if name not in event}
    return {**event, **missing}
