"""Bounded, validating readers for untrusted files.

A project may contain invalid JSON, an endless device, a pipe that blocks, or deeply nested
brackets. Standard library only.
"""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any, NoReturn

MAX_JSON_BYTES = 2**20  # of a file of settings or metrics
MAX_JSON_DEPTH = 40  # of nested lists and dictionaries
_PICKLE_PROTOCOL_0 = re.compile(
    rb"\(*c[\w.]+\r?\n[\w.]+\r?\n"
)  # protocol 0 starts with the name of a function
CODE_EXECUTION_WARNING = "which can run programs when opened"
PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a whole file.

    Raises
    ------
    OSError
        The file is missing or cannot be read.
    ValueError
        It is not a regular file, or larger than ``max_bytes``.
    """
    state = path.stat()  # before opening, since opening a pipe waits for its writer
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f"it is {describe_inode(state.st_mode)}, not a file")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(
            f"it has {state.st_size / 2**20:.1f} MB, more than the maximum of "
            f"{max_bytes / 2**20:g} MB"
        )
    return data


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file; see ``parse_json`` and ``read_bytes`` for errors."""
    return parse_json(read_bytes(path, max_bytes))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON text.

    Raises
    ------
    ValueError
        The text is not valid JSON, or contains duplicate keys, non-finite numbers, deep nesting or
        surrogates.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_nan
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level, depth = [value], 0
    while level := [
        item
        for group in level
        if isinstance(group, (dict, list))
        for item in (group.values() if isinstance(group, dict) else group)
    ]:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError("it is nested too deeply")
    return value


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {duplicate[:60]!r} occurs twice")
    return values


def _reject_nan(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def parse_number(value: object, low: float, high: float) -> float | None:
    """Return a value as a number from low to high; ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if low <= value <= high else None  # nan is in no range


def parse_integer(value: object, low: int, high: int) -> int | None:
    """Return a value as a whole number from low to high; ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if low <= value <= high else None


def describe_inode(mode: int) -> str:
    """Describe the kind of a path that is not a regular file."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def describe_file_type(name: str, head: bytes) -> str | None:
    """Describe the type of an unexpected file in a sentence; ``None`` if it is unknown.

    Parameters
    ----------
    head : the first few hundred bytes of the file
    """
    if re.match(rb"\x80[\x02-\x05]", head) or _PICKLE_PROTOCOL_0.match(head):
        return f"{name} is a Python pickle, {CODE_EXECUTION_WARNING}"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        contents = (
            "of PyTorch with a Python pickle in it" if b"data.pkl" in head else "or .npz file"
        )
        return f"{name} is a zip archive {contents}, {CODE_EXECUTION_WARNING}"
    if head[:6] == b"\x93NUMPY":
        has_objects = re.search(rb"'descr':\s*'[|<>=]?O", head) is not None
        contents = (
            f"of Python objects (a pickle), {CODE_EXECUTION_WARNING}"
            if has_objects
            else "and not weights"
        )
        return f"{name} is a NumPy file {contents}"
    for magic, kind in (
        (b"\x89HDF", "an HDF5 file"),
        (b"\x1f\x8b", "compressed with gzip"),
        (b"version https://git-lfs", "a Git LFS pointer, without the actual file"),
        (b"<", "a web page"),
    ):
        if head.startswith(magic):
            return f"{name} is {kind}"
    return None
