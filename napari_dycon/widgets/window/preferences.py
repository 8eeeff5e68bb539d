"""Settings of the plugin in napari's Preferences.

The manifest defines names, limits and defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from napari.settings import get_plugin_settings


def get_preferences() -> Any:
    """Return the settings of this plugin: ``annotate``, ``review``, ``train`` and ``views``."""
    return get_plugin_settings("napari-dycon")


class PreferenceFollower:
    """Applies changes in the Preferences to an open window, until it is closed.

    Parameters
    ----------
    setters : functions that apply a setting, by its name as in "train.minutes"
    """

    def __init__(self, setters: Mapping[str, Callable[[Any], object]]) -> None:
        self._setters = setters
        self._values = {name: _read(name) for name in setters}
        get_preferences().events.changed.connect(self._apply)

    def close(self) -> None:
        """Stop following."""
        get_preferences().events.changed.disconnect(self._apply)

    def _apply(self, _: object = None) -> None:
        """Apply what differs: the dialog reports the change of a group, not of a setting."""
        for name, known in self._values.items():
            value = _read(name)
            if value != known:
                self._values[name] = value
                self._setters[name](value)


def _read(name: str) -> Any:
    group, _, setting = name.partition(".")
    return getattr(getattr(get_preferences(), group), setting)
