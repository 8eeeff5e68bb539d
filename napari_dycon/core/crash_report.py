"""What went wrong unexpectedly, saved as a report that a person can send to the developers.

A report holds where in the code it happened and which versions took part. Texts of errors often
quote file names, and file names quote patients: whatever could be a name, a path, an id or a date
is left out of it.
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
# What is between quotes is somebody's; of the rest, only plain words and small numbers are kept.
_QUOTED_TEXT = re.compile(r"""(?<!\w)(?:'[^']*'|"[^"]*"|`[^`]*`)""")
_SAFE_WORD = re.compile(r"[a-z]+|[0-9]{1,3}|(?:[0-9]{1,3}\.[0-9]{1,3})")
_PUNCTUATION = "()[]{}<>,;:!?.=…"


def describe_error(error: BaseException) -> str:
    """Save a report of an unexpected error and return one sentence for the person, with its path.

    An error of our own is told as it is: it has its explanation already.
    """
    if isinstance(error, DyconError):
        return str(error)
    summary = "Something unexpected went wrong"
    try:
        path = write_crash_report(error)
    except Exception:  # who tells of an error must not fail by it
        return f"{summary} ({type(error).__name__}), and no report of it could be saved."
    return (
        f"{summary}. A report, with names and dates left out, is in {path}; please look through it "
        "and send it to the developers. What you drew is kept; try again, or open the project anew."
    )


def write_crash_report(error: BaseException) -> Path:
    """Write the report of an error into the person's own folder of this program."""
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
    """Text of a report: versions, then the error and what led to it, without private texts."""
    lines = [f"napari-dycon {__version__}", f"Python {platform.python_version()}"]
    lines += [f"{platform.system()} {platform.release()} {platform.machine()}"]
    for name in LIBRARIES:  # only what takes part; nothing is imported for it
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
        lines += ["", "which led to" if number else "What happened"]
        for frame in traceback.extract_tb(cause.__traceback__):
            lines.append(f"  {_location(frame.filename)}:{frame.lineno} in {frame.name}")
            lines += [f"    {frame.line}"] if frame.line else []
        lines.append(f"{type(cause).__name__}: {redact(str(cause))}")
    return "\n".join(lines) + "\n"


def redact(text: str) -> str:
    """Leave out of a message what could be a name, a path, an id or a date."""
    return re.sub(r"\S+", lambda hit: _redact_word(hit[0]), _QUOTED_TEXT.sub("…", text))[:2000]


def _redact_word(word: str) -> str:
    """Keep a word of small ASCII letters or a small number, and the punctuation around it."""
    bare = word.strip(_PUNCTUATION)
    if not bare or _SAFE_WORD.fullmatch(bare):
        return word
    before, _, after = word.partition(bare)
    return f"{before}…{after}"


def raised_in_package(trace: TracebackType | None) -> bool:
    """Whether an error passed through this package."""
    frames = traceback.extract_tb(trace)
    return any(Path(frame.filename).is_relative_to(PACKAGE) for frame in frames)


def _location(file: str) -> str:
    """Name a source file without the folders above its package."""
    parts = Path(file).parts
    for packages_folder in ("site-packages", "dist-packages"):
        if packages_folder in parts:
            return "/".join(parts[parts.index(packages_folder) + 1 :])
    if Path(file).is_relative_to(PACKAGE.parent):
        return Path(file).relative_to(PACKAGE.parent).as_posix()
    return Path(file).name
