"""Crash reports of unexpected exceptions, which users can send to the developers.

A report contains locations in the code and versions of libraries. Messages of exceptions often
quote file names, which may contain patients' names: everything that could be a name, a path, an id
or a date is redacted.
"""

from __future__ import annotations

import contextlib
import platform
import re
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType

from napari_dycon import __version__
from napari_dycon.core.atomic import write_text
from napari_dycon.core.user_dirs import user_state_dir
from napari_dycon.errors import DyconError

PACKAGE = Path(__file__).parents[1]
MAX_REPORTS = 20
LIBRARIES = ("numpy", "torch", "monai", "napari", "qtpy", "nibabel", "SimpleITK", "pydicom")
# Quoted text is removed; of the rest, only plain words and small numbers are kept.
_QUOTED_TEXT = re.compile(r"""(?<!\w)(?:'[^']*'|"[^"]*"|`[^`]*`)""")
_SAFE_WORD = re.compile(r"[a-z]+|[0-9]{1,3}|(?:[0-9]{1,3}\.[0-9]{1,3})")
_PUNCTUATION = "()[]{}<>,;:!?.=…"


def describe_error(error: BaseException) -> str:
    """Save a report of an unexpected error; return a sentence for the user with its path.

    The message of a ``DyconError`` is returned unchanged.
    """
    if isinstance(error, DyconError):
        return str(error)
    summary = "An unexpected error occurred"
    try:
        path = write_crash_report(error)
    except Exception:  # noqa: BLE001 - reporting an error must not fail
        return f"{summary} ({type(error).__name__}), and no report could be saved."
    return (
        f"{summary}. A redacted report was saved to {path}; please review it and "
        "send it to the developers. Your annotations are kept; try again, or reopen the project."
    )


def write_crash_report(error: BaseException) -> Path:
    """Write the report of an error to the user's state folder."""
    folder = user_state_dir() / "reports"
    with contextlib.suppress(OSError):
        for old in sorted(folder.glob("report-*.txt"))[: -MAX_REPORTS + 1]:
            old.unlink()
    timestamp = time.strftime("%Y%m%d-%H%M%S")
    path = folder / f"report-{timestamp}-{time.time_ns() % 1000:03d}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failed:
        raise DyconError(f"{folder} cannot be created: {failed.strerror}.") from failed
    write_text(path, format_report(error))
    return path


def format_report(error: BaseException) -> str:
    """Format a report: versions, then the error and its causes, redacted."""
    lines = [f"napari-dycon {__version__}", f"Python {platform.python_version()}"]
    lines += [f"{platform.system()} {platform.release()} {platform.machine()}"]
    for name in LIBRARIES:  # only imported libraries
        version = getattr(sys.modules.get(name), "__version__", None)
        lines += [f"{name} {version}"] if version else []
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain and len(chain) < 10:
        chain.append(current)
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    for number, cause in enumerate(reversed(chain)):
        lines += ["", "which caused" if number else "Error"]
        for frame in traceback.extract_tb(cause.__traceback__):
            lines.append(f"  {_location(frame.filename)}:{frame.lineno} in {frame.name}")
            lines += [f"    {frame.line}"] if frame.line else []
        lines.append(f"{type(cause).__name__}: {redact(str(cause))}")
    return "\n".join(lines) + "\n"


def redact(text: str) -> str:
    """Redact everything in a message that could be a name, a path, an id or a date."""
    return re.sub(r"\S+", lambda hit: _redact_word(hit[0]), _QUOTED_TEXT.sub("…", text))[:2000]


def _redact_word(word: str) -> str:
    """Keep a word of lowercase ASCII letters or a small number, with its punctuation."""
    bare = word.strip(_PUNCTUATION)
    if not bare or _SAFE_WORD.fullmatch(bare):
        return word
    before, _, after = word.partition(bare)
    return f"{before}…{after}"


def raised_in_package(trace: TracebackType | None) -> bool:
    """Check whether an error passed through this package."""
    frames = traceback.extract_tb(trace)
    return any(Path(frame.filename).is_relative_to(PACKAGE) for frame in frames)


def _location(file: str) -> str:
    """Return the path of a source file without the folders above its package."""
    parts = Path(file).parts
    for packages_folder in ("site-packages", "dist-packages"):
        if packages_folder in parts:
            return "/".join(parts[parts.index(packages_folder) + 1 :])
    if Path(file).is_relative_to(PACKAGE.parent):
        return Path(file).relative_to(PACKAGE.parent).as_posix()
    return Path(file).name
