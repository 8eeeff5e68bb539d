"""Preferences show the unit of each number."""

from __future__ import annotations

from importlib.resources import files

import pytest
import yaml

UNITS = {
    "brush_mm": "Brush diameter (mm)",
    "grow_margin_mm": "Growing distance (mm)",
    "show_above": "Uncertainty threshold",
    "minutes": "Training time per round (min)",
}


@pytest.mark.parametrize(("name", "title"), UNITS.items())
def test_titles_have_units(name: str, title: str) -> None:
    text = (files("napari_dycon") / "napari.yaml").read_text(encoding="utf-8")
    groups = yaml.safe_load(text)["contributions"]["configurations"]
    groups = groups.values() if isinstance(groups, dict) else groups
    properties = {key: value for group in groups for key, value in group["properties"].items()}
    assert properties[name]["title"] == title
