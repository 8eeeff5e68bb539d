"""The folder in which this program keeps things of its own for a person, outside any project."""

from __future__ import annotations

import os
from pathlib import Path

STATE_DIR_ENV = "NAPARI_DYCON_STATE"


def user_state_dir() -> Path:
    """Folder for reports and what the program remembers; not made by asking for it.

    The place that the operating system has for such things, or the one that the environment
    variable ``NAPARI_DYCON_STATE`` names.
    """
    if chosen := os.environ.get(STATE_DIR_ENV):
        return Path(chosen).absolute()
    try:
        from platformdirs import user_state_path
    except ImportError:  # a copy of the package that was not installed with what it needs
        return Path.home() / ".local" / "state" / "napari-dycon"
    return user_state_path("napari-dycon", appauthor=False)
