"""Settings of the plugin in napari's Preferences.

The manifest defines names, limits and defaults.
"""

from __future__ import annotations

from typing import Any

from napari.settings import get_plugin_settings


def get_preferences() -> Any:
    """Return the settings of this plugin: ``annotate``, ``review`` and ``train``."""
    return get_plugin_settings("napari-dycon")
