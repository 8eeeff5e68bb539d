"""Exception classes of the package.

All exceptions that this package raises on purpose derive from :class:`DyconError`, so that the
window or a command can show one line instead of a traceback. A message contains what was found,
what was expected and what to do.

::

    DyconError
    ├── UserError            the user can correct it; exit code 2
    │   ├── ProjectError     the project folder: missing, damaged, newer, read-only
    │   ├── FileFormatError  a scan or label file that cannot be read as one
    │   ├── GeometryError    grids that do not fit each other or are unusable
    │   │   └── IrregularSlicesError   slices that need resampling to a regular grid
    │   ├── LabelError       label values that do not fit the project's classes
    │   ├── ConfigError      settings that are unknown or out of range
    │   └── BusyError        in use by another process
    └── EngineError          training or prediction failed; exit code 1

:class:`CancelledError` stands apart: it is no failure, and code that handles errors must not catch
it.
"""

from __future__ import annotations


class DyconError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code = 1


class UserError(DyconError):
    """An error that the user can correct: an input, a setting, a folder."""

    exit_code = 2


class ProjectError(UserError):
    """The project folder is missing, damaged, of a newer version, or not writable."""


class FileFormatError(UserError):
    """A file cannot be read as a 3D scan or label."""


class GeometryError(UserError):
    """Two grids do not match, or one is invalid."""


class IrregularSlicesError(GeometryError):
    """Slices of a series are irregular, missing or tilted; reading can resample them.

    Attributes
    ----------
    finding : the finding, without a full stop
    advice : the expectation and the action, as complete sentences
    """

    def __init__(self, finding: str, advice: str) -> None:
        super().__init__(finding, advice)  # both, so that it can be pickled
        self.finding = finding
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.finding}. {self.advice}"


class LabelError(UserError):
    """Label values do not match the classes of the project."""


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or out of range."""


class BusyError(UserError):
    """Another session or command is currently using the project."""


class EngineError(DyconError):
    """Training or prediction failed for a reason outside the user's input."""


class CancelledError(Exception):
    """The user canceled the task. It ends the task at its next progress report."""
