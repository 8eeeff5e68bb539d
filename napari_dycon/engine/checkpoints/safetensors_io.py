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

from napari_dycon.core.untrusted import (
    CODE_EXECUTION_WARNING,
    PICKLE_SUFFIXES,
    describe_file_type,
    describe_inode,
    parse_json,
)
from napari_dycon.errors import ConfigError

MAX_HEADER_BYTES = 2**23  # bytes; a network of a thousand layers needs a fiftieth
MAX_DIMENSIONS = 8
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
RETRAIN_HINT = (
    "Expected the safetensors file that a training run wrote. Choose another run or train again."
)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: its type as safetensors calls it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SafetensorsHeader:
    """Tensors by name, and what stands beside them."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header alone; the tensors are not touched.

    Raises
    ------
    ConfigError
        In one line: the file is missing, something else (a pickle, a zip archive, ...), damaged, or
        made to mislead.
    """
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise ConfigError(
            f"{path.name} is or may hold a Python pickle, {CODE_EXECUTION_WARNING}. {RETRAIN_HINT}"
        )
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ConfigError(
                f"{path.name} is {describe_inode(state.st_mode)} and no file. {RETRAIN_HINT}"
            )
        with path.open("rb") as file:
            head = file.read(512)
            length = int.from_bytes(head[:8], "little")
            if head[8:9] != b"{" or length > min(MAX_HEADER_BYTES, state.st_size - 8):
                if (description := describe_file_type(path.name, head)) is not None:
                    raise ConfigError(f"{description}; it is never opened. {RETRAIN_HINT}")
                raise _damaged_file_error(
                    path, "it has no header, or one that is longer than it can be"
                )
            file.seek(8)
            text = file.read(length)
    except FileNotFoundError:
        raise ConfigError(f"There are no weights at {path}; train first.") from None
    except OSError as error:
        raise _damaged_file_error(path, error.strerror or str(error)) from None
    return parse_header(path, text, state.st_size - 8 - length)


def parse_header(path: Path, text: bytes, data_bytes: int) -> SafetensorsHeader:
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
        values = parse_json(text)
    except ValueError as error:
        raise _damaged_file_error(path, f"its header is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise _damaged_file_error(path, "its header is no JSON object")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged_file_error(path, "its metadata are no texts")
    tensors, extents = {}, []
    for name, description in values.items():
        tensors[name], extent = _parse_tensor_info(path, name, description)
        extents.append((*extent, name))
    end = 0
    for begin, stop, name in sorted(extents):
        if begin != end:
            problem = "overlaps another" if begin < end else "does not follow the one before"
            raise _damaged_file_error(path, f"its tensor {_truncate(name)} {problem}")
        end = stop
    if end != data_bytes:
        raise _damaged_file_error(
            path, f"its tensors take {end} bytes, but it has {data_bytes} for them"
        )
    return SafetensorsHeader(tensors, metadata)


def _parse_tensor_info(
    path: Path, name: str, description: Any
) -> tuple[TensorInfo, tuple[int, int]]:
    """Type, shape and place of a tensor, which have to agree."""
    if not isinstance(description, dict) or set(description) != {"dtype", "shape", "data_offsets"}:
        raise _damaged_file_error(
            path, f"its tensor {_truncate(name)} is not described as tensors are"
        )
    dtype, shape, extent = description["dtype"], description["shape"], description["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _damaged_file_error(
            path, f"its tensor {_truncate(name)} has the unknown type {_truncate(dtype)}"
        )
    if (
        not _is_size_list(shape)
        or len(shape) > MAX_DIMENSIONS
        or not _is_size_list(extent)
        or len(extent) != 2
    ):
        raise _damaged_file_error(
            path, f"its tensor {_truncate(name)} has no usable shape or place"
        )
    # Python's whole numbers do not overflow.
    if extent[1] - extent[0] != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise _damaged_file_error(
            path, f"its tensor {_truncate(name)} has another size than its shape"
        )
    return TensorInfo(dtype, tuple(shape)), (extent[0], extent[1])


def _is_size_list(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 2**48 for n in values)


def _truncate(text: Any) -> str:
    return repr(text)[:60]


def _damaged_file_error(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path.name} cannot be read as weights: {reason}; it may be damaged. {RETRAIN_HINT}"
    )
