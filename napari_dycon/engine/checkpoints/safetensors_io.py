"""The header of a safetensors file, checked before anything is allocated for it.

The format is a length (8 bytes), a JSON header of that length with the name, type, shape and place
of each tensor, and the tensors. Whoever made a file decides about all of these, so all of them are
compared with the file and with each other here, and with the network that they are for in
``checkpoint.py``. Nothing here imports torch.
"""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_dycon.core.untrusted import PICKLES, PROGRAMS, foreign, kind_of, loads
from napari_dycon.errors import ConfigError

MOST_HEADER = 2**23  # bytes; a network of a thousand layers needs a fiftieth
MOST_DIMENSIONS = 8
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
ADVICE = (
    "Expected the safetensors file that a training run wrote. Choose another run or train again."
)


@dataclass(frozen=True)
class Entry:
    """One tensor: its type as safetensors calls it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """Tensors by name, and what stands beside them."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Read and check the header alone; the tensors are not touched.

    Raises
    ------
    ConfigError
        In one line: the file is missing, something else (a pickle, a zip archive, ...), damaged, or
        made to mislead.
    """
    if path.suffix.lower() in PICKLES:
        raise ConfigError(f"{path.name} is or may hold a Python pickle, {PROGRAMS}. {ADVICE}")
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ConfigError(f"{path.name} is {kind_of(state.st_mode)} and no file. {ADVICE}")
        with path.open("rb") as file:
            head = file.read(512)
            length = int.from_bytes(head[:8], "little")
            if head[8:9] != b"{" or length > min(MOST_HEADER, state.st_size - 8):
                if (found := foreign(path.name, head)) is not None:
                    raise ConfigError(f"{found}; it is never opened. {ADVICE}")
                raise _damaged(path, "it has no header, or one that is longer than it can be")
            file.seek(8)
            text = file.read(length)
    except FileNotFoundError:
        raise ConfigError(f"There are no weights at {path}; train first.") from None
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from None
    return parse_header(path, text, state.st_size - 8 - length)


def parse_header(path: Path, text: bytes, room: int) -> Header:
    """Check the text of a header.

    Parameters
    ----------
    path : of the file, to tell a person
    room : bytes of the file behind the header

    Raises
    ------
    ConfigError
        As ``read_header``.
    """
    try:
        values = loads(text)
    except ValueError as error:
        raise _damaged(path, f"its header is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise _damaged(path, "its header is no JSON object")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(path, "its metadata are no texts")
    entries, places = {}, []
    for name, about in values.items():
        entries[name], place = _entry(path, name, about)
        places.append((*place, name))
    end = 0
    for begin, stop, name in sorted(places):
        if begin != end:
            what = "overlaps another" if begin < end else "does not follow the one before"
            raise _damaged(path, f"its tensor {_short(name)} {what}")
        end = stop
    if end != room:
        raise _damaged(path, f"its tensors take {end} bytes, but it has {room} for them")
    return Header(entries, metadata)


def _entry(path: Path, name: str, about: Any) -> tuple[Entry, tuple[int, int]]:
    """Type, shape and place of a tensor, which have to agree."""
    if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"its tensor {_short(name)} is not described as tensors are")
    dtype, shape, place = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise _damaged(path, f"its tensor {_short(name)} has the unknown type {_short(dtype)}")
    if not _sizes(shape) or len(shape) > MOST_DIMENSIONS or not _sizes(place) or len(place) != 2:
        raise _damaged(path, f"its tensor {_short(name)} has no usable shape or place")
    # Python's whole numbers do not overflow.
    if place[1] - place[0] != math.prod(shape) * BYTES[dtype]:
        raise _damaged(path, f"its tensor {_short(name)} has another size than its shape")
    return Entry(dtype, tuple(shape)), (place[0], place[1])


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 2**48 for n in values)


def _short(text: Any) -> str:
    return repr(text)[:60]


def _damaged(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{path.name} cannot be read as weights: {found}; it may be damaged. {ADVICE}"
    )
