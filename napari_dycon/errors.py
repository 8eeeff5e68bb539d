"""The whole tree of errors, in one place.

Everything this package raises on purpose derives from :class:`DyconError`, so that a window or a
command can show one line instead of a traceback. A message says what was found, what was expected
and what to do about it. None of them derives from ``RuntimeError``: superqt's background workers
swallow that one.

::

    DyconError
    ├── UserError            a person can mend it; exit code 2
    │   ├── ProjectError     the project folder: missing, damaged, newer, read-only
    │   ├── FileFormatError  a scan or label file that cannot be read as one
    │   ├── GeometryError    grids that do not fit each other or are unusable
    │   │   └── IrregularSlicesError   slices that only fit an even grid when they are resampled
    │   ├── LabelError       label values that do not fit the project's classes
    │   ├── ConfigError      settings that are unknown or out of range
    │   └── BusyError        somebody else is using it at this moment
    └── EngineError          training or prediction failed; exit code 1
"""

from __future__ import annotations


class DyconError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code = 1


class UserError(DyconError):
    """Something a person can mend: an input, a setting, a folder."""

    exit_code = 2


class ProjectError(UserError):
    """The project folder is missing, damaged, too new, or cannot be written."""


class FileFormatError(UserError):
    """A file cannot be read as a 3D scan or label."""


class GeometryError(UserError):
    """Two grids do not fit each other, or one cannot be used."""


class IrregularSlicesError(GeometryError):
    """Slices of a series are uneven, missing or tilted; reading may resample them if asked to.

    Attributes
    ----------
    finding : what was found, without a full stop
    advice : what was expected and what to do, as whole sentences
    """

    def __init__(self, finding: str, advice: str) -> None:
        super().__init__(finding, advice)  # both, so that it can be pickled
        self.finding = finding
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.finding}. {self.advice}"


class LabelError(UserError):
    """Label values do not fit the classes of the project."""


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or out of range."""


class BusyError(UserError):
    """Another window or command is using this project at the moment."""


class EngineError(DyconError):
    """Training or prediction failed for a reason outside the user's input."""
