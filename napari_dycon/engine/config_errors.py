"""Error messages for settings: the value found and the value expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

MAX_NUMBER = 1e30
MAX_SUGGESTIONS = 3  # of similar names for an unknown setting


def describe_error(error: ErrorDetails, fields: Mapping[str, FieldInfo]) -> str:
    """Describe a validation error in one sentence, with the value found and expected."""
    names = [str(part) for part in error["loc"]]
    name = next(
        (n for n in (".".join(names[:2]), ".".join(names[:1])) if n in fields), ".".join(names)
    )
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"Unknown setting {_shorten_name(name)}. {_suggest(name, fields)}"
    if kind == "value_error":
        text = str(error["ctx"]["error"])
        subject = "Setting" if not names or name not in fields else f"Setting {name}"
        return f"{subject} {text}."
    found = _shorten(error["input"])
    context = error.get("ctx", {})
    if kind == "literal_error":
        choices = ", ".join(get_choices(fields[name]))
        return f"Setting {name} is {found}; expected one of: {choices}."
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"Setting {name} is {found}; expected {describe_range(fields[name]) or context}."
    if kind in ("too_long", "too_short"):
        limit = context.get("max_length", context.get("min_length"))
        bound = "at most" if kind == "too_long" else "at least"
        return f"Setting {name} has {context['actual_length']} values; expected {bound} {limit}."
    if kind == "finite_number":
        return f"Setting {name} is out of range; expected a finite number."
    if name in fields:
        return f"Setting {name} cannot be {found}; expected {describe_type(fields[name])}."
    return f"Setting {name} cannot be {found}; expected its settings by name."


def _suggest(name: str, fields: Mapping[str, FieldInfo]) -> str:
    """Suggest the settings with the most similar names, whole or without their group."""
    last = name.rpartition(".")[2]
    names_by_last: dict[str, list[str]] = {}
    for known in fields:
        names_by_last.setdefault(known.rpartition(".")[2], []).append(known)
    similar = difflib.get_close_matches(last, names_by_last, n=MAX_SUGGESTIONS, cutoff=0.6)
    near = [known for match in similar for known in names_by_last[match]]
    near += difflib.get_close_matches(name, fields, n=MAX_SUGGESTIONS, cutoff=0.6)
    if suggestions := list(dict.fromkeys(near))[:MAX_SUGGESTIONS]:
        return f"Did you mean {' or '.join(suggestions)}?"
    return "The documentation lists all settings under Reference, Configuration."


def _shorten_name(name: str) -> str:
    """Shorten an untrusted name to at most 80 characters."""
    return name if len(name) <= 80 else f"{name[:77]}..."


def get_choices(field: FieldInfo) -> list[str]:
    """Return the permitted words of a setting; empty if it is not a choice."""
    for part in _iterate_types(field.annotation):
        if get_origin(part) is Literal:
            return [str(choice) for choice in get_args(part)]
    return []


def describe_range(field: FieldInfo) -> str:
    """Describe the range of a setting, such as "0 to 1"; empty if it is unbounded."""
    bounds = [*field.metadata]
    for part in _iterate_types(field.annotation):
        if get_origin(part) is Annotated:
            bounds += [*get_args(part)[1:]]
    bounds += [
        inner for bound in bounds if isinstance(bound, FieldInfo) for inner in bound.metadata
    ]
    low = [b.ge for b in bounds if isinstance(b, annotated_types.Ge) and b.ge != -MAX_NUMBER]
    high = [b.le for b in bounds if isinstance(b, annotated_types.Le) and b.le != MAX_NUMBER]
    above = [b.gt for b in bounds if isinstance(b, annotated_types.Gt)]
    if above:
        return f"more than {above[-1]:,}" + (f", at most {high[-1]:,}" if high else "")
    if low and high:
        return f"{low[-1]:,} to {high[-1]:,}"
    return f"{low[-1]:,} or more" if low else ""


def describe_type(field: FieldInfo) -> str:
    """Describe the type of a setting, such as "a list of 3 numbers such as [1,1,1]"."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    examples = {int: "1", float: "0.5"}
    found = []
    for part in _iterate_types(field.annotation):
        if get_origin(part) is tuple:
            kinds = get_args(part)
            item = next(kind for kind in _iterate_types(kinds[0]) if kind in examples)
            count = 2 if kinds[-1] is Ellipsis else len(kinds)
            size = "" if kinds[-1] is Ellipsis else f"{count} "
            found.append(f"a list of {size}numbers such as [{','.join([examples[item]] * count)}]")
            break
        if get_origin(part) is Literal:
            found.append(f"one of: {', '.join(get_choices(field))}")
        elif part in words:
            found.append(words[part])
    if type(None) in _iterate_types(field.annotation):
        found.append("null")
    return " or ".join(found)


def _iterate_types(annotation: Any) -> Iterator[Any]:
    """Iterate over an annotation and its arguments, recursively."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _iterate_types(part)


def _shorten(value: Any) -> str:
    """Format an untrusted value in at most 80 characters."""
    if isinstance(value, int) and abs(value) >= 10**12:
        return "a number of more than 12 digits"
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
