"""The presets that ship with the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from napari_dycon.errors import ConfigError


def list_presets() -> list[str]:
    """List the names of the presets."""
    folder = resources.files("napari_dycon") / "resources" / "presets"
    return sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith("json"))


def describe_preset(name: str) -> str:
    """Return the one-sentence description of a preset."""
    return str(_read_preset(name).get("description", ""))


def load_preset(name: str) -> dict[str, Any]:
    """Return the nested settings of a preset."""
    values = _read_preset(name)
    values.pop("description", None)
    return values


def _read_preset(name: str) -> dict[str, Any]:
    if name not in list_presets():
        raise ConfigError(
            f"There is no preset '{name}'. Choose one of: {', '.join(list_presets())}."
        )
    file = resources.files("napari_dycon") / "resources" / "presets" / f"{name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))
