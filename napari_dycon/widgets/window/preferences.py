"""What people set in napari's Preferences; the manifest holds names, limits and defaults."""

from __future__ import annotations

from typing import Any

from napari.settings import get_plugin_settings


def get_preferences() -> Any:
    """Settings of this plugin: ``annotate``, ``review`` and ``train``."""
    return get_plugin_settings("napari-dycon")
