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
from napari_dycon.core.user_dirs import own_folder
from napari_dycon.errors import DyconError

PACKAGE = Path(__file__).parents[1]
MOST_REPORTS = 20
LIBRARIES = ("numpy", "torch", "monai", "napari", "qtpy", "nibabel", "SimpleITK", "pydicom")
# What is between quotes is somebody's; of the rest, only plain words and small numbers are kept.
QUOTED = re.compile(r"""(?<!\w)(?:'[^']*'|"[^"]*"|`[^`]*`)""")
PLAIN = re.compile(r"[a-z]+|[0-9]{1,3}|(?:[0-9]{1,3}\.[0-9]{1,3})")
AROUND = "()[]{}<>,;:!?.=…"


def explained(error: BaseException) -> str:
    """Save a report of an unexpected error and return one sentence for the person, with its path.

    An error of our own is told as it is: it has its explanation already.
    """
    if isinstance(error, DyconError):
        return str(error)
    what = "Something unexpected went wrong"
    try:
        path = save_report(error)
    except Exception:  # who tells of an error must not fail by it
        return f"{what} ({type(error).__name__}), and no report of it could be saved."
    return (
        f"{what}. A report, with names and dates left out, is in {path}; please look through it "
        "and send it to the developers. What you drew is kept; try again, or open the project anew."
    )


def save_report(error: BaseException) -> Path:
    """Write the report of an error into the person's own folder of this program."""
    folder = own_folder() / "reports"
    with contextlib.suppress(OSError):
        for old in sorted(folder.glob("report-*.txt"))[: -MOST_REPORTS + 1]:
            old.unlink()
    number = time.strftime("%Y%m%d-%H%M%S")
    path = folder / f"report-{number}-{time.time_ns() % 1000:03d}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failed:
        raise DyconError(f"{folder} cannot be made: {failed.strerror}.") from failed
    write_text(path, report(error))
    return path


def report(error: BaseException) -> str:
    """Text of a report: versions, then the error and what led to it, without private texts."""
    lines = [f"napari-dycon {__version__}", f"Python {platform.python_version()}"]
    lines += [f"{platform.system()} {platform.release()} {platform.machine()}"]
    for name in LIBRARIES:  # only what takes part; nothing is imported for it
        found = getattr(sys.modules.get(name), "__version__", None)
        lines += [f"{name} {found}"] if found else []
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain and len(chain) < 10:
        chain.append(current)
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    for number, each in enumerate(reversed(chain)):
        lines += ["", "which led to" if number else "What happened"]
        for frame in traceback.extract_tb(each.__traceback__):
            lines.append(f"  {_place(frame.filename)}:{frame.lineno} in {frame.name}")
            lines += [f"    {frame.line}"] if frame.line else []
        lines.append(f"{type(each).__name__}: {without_names(str(each))}")
    return "\n".join(lines) + "\n"


def without_names(text: str) -> str:
    """Leave out of a message what could be a name, a path, an id or a date."""
    return re.sub(r"\S+", lambda hit: _plain(hit[0]), QUOTED.sub("…", text))[:2000]


def _plain(word: str) -> str:
    """Keep a word of small ASCII letters or a small number, and the punctuation around it."""
    bare = word.strip(AROUND)
    if not bare or PLAIN.fullmatch(bare):
        return word
    before, _, after = word.partition(bare)
    return f"{before}…{after}"


def is_ours(trace: TracebackType | None) -> bool:
    """Whether an error passed through this package."""
    frames = traceback.extract_tb(trace)
    return any(Path(frame.filename).is_relative_to(PACKAGE) for frame in frames)


def _place(file: str) -> str:
    """Name a source file without the folders above its package."""
    parts = Path(file).parts
    for mark in ("site-packages", "dist-packages"):
        if mark in parts:
            return "/".join(parts[parts.index(mark) + 1 :])
    if Path(file).is_relative_to(PACKAGE.parent):
        return Path(file).relative_to(PACKAGE.parent).as_posix()
    return Path(file).name
