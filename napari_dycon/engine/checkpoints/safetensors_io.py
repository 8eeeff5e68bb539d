"""Atomic writer and untrusted reader of safetensors files.

Before safetensors sees a file, pickles and other kinds of files are rejected with specific
messages, and the size of the header is limited. Its Rust core then validates shapes, types and
offsets against each other and the file. Tensors are read only on demand, after the caller has
compared their types and shapes with those of the network.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_dycon.core.atomic import atomic_write
from napari_dycon.core.text import escape_control_characters
from napari_dycon.core.untrusted import (
    CODE_EXECUTION_WARNING,
    PICKLE_SUFFIXES,
    describe_file_type,
    describe_inode,
    parse_json,
)
from napari_dycon.errors import ConfigError

FORMAT = "napari-dycon"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 2**23  # a network of a thousand layers needs 2 % of it
MAX_REASON_CHARACTERS = 200
TENSOR_KEYS = {"dtype", "shape", "data_offsets"}
DTYPE_NAMES = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL"})
RETRAIN_HINT = (
    "Expected the safetensors file that a training run wrote. Choose another run or train again."
)


@dataclass(frozen=True)
class TensorInfo:
    """Type (as named by safetensors) and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SafetensorsFile:
    """An open file: types and shapes of its tensors, its metadata, and its tensors on demand."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    _file: Any  # safe_open has no types

    def read_tensors(self, names: Collection[str]) -> dict[str, Tensor]:
        """Read tensors; numbers that are not finite raise ``ConfigError``."""
        try:
            result: dict[str, Tensor] = {name: self._file.get_tensor(name) for name in names}
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged_file_error(self.path, str(error)) from None
        for name, tensor in result.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ConfigError(
                    f"{self.path.name} holds numbers that are not finite (NaN or infinity) in "
                    f"{name}; with them every prediction would be empty. Choose another run or "
                    "train again."
                )
        return result


@contextmanager
def open_untrusted_safetensors(path: Path) -> Iterator[SafetensorsFile]:
    """Open an untrusted file; no tensor is read yet.

    Raises
    ------
    ConfigError
        The file is missing, of another kind (a pickle, a zip archive, ...), damaged, or
        ambiguous.
    """
    _check_header(path)
    try:
        file = safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged_file_error(path, str(error)) from None
    with file:
        metadata = file.metadata() or {}  # type: ignore[no-untyped-call]
        yield SafetensorsFile(path, _read_tensor_infos(path, file), metadata, file)


def _check_header(path: Path) -> None:
    """Reject other kinds of files, and headers that are too large or ambiguous."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise ConfigError(
            f"{path.name} is or may hold a Python pickle, {CODE_EXECUTION_WARNING}. {RETRAIN_HINT}"
        )
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ConfigError(
                f"{path.name} is {describe_inode(state.st_mode)}, not a file. {RETRAIN_HINT}"
            )
        with path.open("rb") as file:
            head = file.read(512)
            length = int.from_bytes(head[:8], "little")
            if head[8:9] != b"{" or length > min(MAX_HEADER_BYTES, state.st_size - 8):
                if (description := describe_file_type(path.name, head)) is not None:
                    raise ConfigError(f"{description}; it is never opened. {RETRAIN_HINT}")
                raise _damaged_file_error(path, "it has no header, or one that is too long")
            file.seek(8)
            text = file.read(length)
    except FileNotFoundError:
        raise ConfigError(f"There are no weights at {path}; train first.") from None
    except OSError as error:
        raise _damaged_file_error(path, error.strerror or str(error)) from None
    # safetensors takes the last of two equal names and ignores unknown keys.
    try:
        values = parse_json(text)
    except ValueError as error:
        raise _damaged_file_error(path, f"its header is not valid JSON: {error}") from None
    for name, description in values.items():
        if name != "__metadata__" and not (
            isinstance(description, dict) and set(description) == TENSOR_KEYS
        ):
            raise _damaged_file_error(
                path, f"its tensor {repr(name)[:60]} has an invalid description"
            )


def _read_tensor_infos(path: Path, file: Any) -> dict[str, TensorInfo]:
    """Return types and shapes, read from the header only."""
    infos = {}
    for name in file.keys():  # noqa: SIM118 - safe_open is not a mapping
        tensor = file.get_slice(name)
        infos[name] = TensorInfo(tensor.get_dtype(), tuple(tensor.get_shape()))
        if infos[name].dtype not in DTYPE_NAMES:
            raise _damaged_file_error(
                path, f"its tensor {repr(name)[:60]} has the unknown type {infos[name].dtype}"
            )
    return infos


def _damaged_file_error(path: Path, reason: str) -> ConfigError:
    # Messages of safetensors may quote the file.
    reason = " ".join(escape_control_characters(reason).split())[:MAX_REASON_CHARACTERS]
    return ConfigError(
        f"{path.name} cannot be read as weights: {reason}; it may be damaged. {RETRAIN_HINT}"
    )


def parse_description(file: SafetensorsFile) -> dict[str, Any]:
    """Return the JSON object that ``write_tensors`` was given as ``description``."""
    path = file.path
    if file.metadata.get("format") != FORMAT:
        raise ConfigError(
            f"{path.name} holds no weights of this program; expected a file written by a "
            "training run."
        )
    version = file.metadata.get("version", "")
    if not re.fullmatch(r"[0-9]{1,6}", version):
        raise incompatible_error(path, "its version is missing")
    if int(version) > FORMAT_VERSION:
        raise ConfigError(f"{path.name} was written by a newer version; update to open it.")
    try:
        description = parse_json(file.metadata["about"])
    except (KeyError, ValueError):
        description = None
    if not isinstance(description, dict):
        raise incompatible_error(path, "its description is missing")
    return description


def incompatible_error(path: Path, reason: str) -> ConfigError:
    """Build the error for an intact file that is incompatible with this version."""
    return ConfigError(
        f"The weights at {path} are incompatible with this version: {reason}. Choose another run "
        "or train again."
    )


def write_tensors(path: Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write tensors that share no memory, in C order, and a JSON description of them."""
    metadata = {"format": FORMAT, "version": str(FORMAT_VERSION), "about": json.dumps(description)}
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # its type does not distinguish a full disk
            raise OSError(_extract_reason(error)) from error


def _extract_reason(error: Exception) -> str:
    """Extract the operating system's message from an error of safetensors."""
    return str(error).rpartition("I/O error: ")[2].partition(" (os error")[0]
