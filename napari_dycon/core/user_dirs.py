"""The user's state folder of this program, outside of projects."""

from __future__ import annotations

import os
from pathlib import Path

STATE_DIR_ENV = "NAPARI_DYCON_STATE"


def user_state_dir() -> Path:
    """Return the folder for crash reports and persistent state, without creating it.

    The standard folder of the operating system, or that of the environment variable
    ``NAPARI_DYCON_STATE``.
    """
    if chosen := os.environ.get(STATE_DIR_ENV):
        return Path(chosen).absolute()
    try:
        from platformdirs import user_state_path
    except ImportError:  # a copy of the package without its dependencies
        return Path.home() / ".local" / "state" / "napari-dycon"
    return user_state_path("napari-dycon", appauthor=False)
