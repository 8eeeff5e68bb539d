"""Imports only go down, and there are no import cycles."""

from __future__ import annotations

import ast
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import napari_dycon

PACKAGE = Path(napari_dycon.__file__).parent
NAME = PACKAGE.name

# From bottom to top; packages in one line do not import each other.
LAYERS: list[set[str]] = [
    {"__init__", "errors"},
    {"core"},
    {"io"},
    {"project"},
    {"annotation", "engine"},
    {"exports"},
    {"application"},
    {"session"},
    {"widgets"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
# Modules that are not imported by importing another one. Those of a list are imported one after
# another in one process: each forbids nothing that the ones before it may import.
ABSENT: list[dict[str, list[str]]] = [
    {
        "napari_dycon.core": ["numpy", "torch", "qtpy", "napari", "monai", "psygnal", "typer"],
        "napari_dycon.project.store": ["torch", "qtpy", "napari", "monai", "psygnal", "typer"],
        "napari_dycon.session": ["torch", "qtpy", "napari", "monai"],
        "napari_dycon.cli.app": ["torch", "qtpy", "napari", "monai"],
        "napari_dycon.widgets.panel": ["torch", "monai"],
    },
    {
        "napari_dycon.engine.evaluation.folders": [
            "qtpy", "napari", "psygnal", "typer", "SimpleITK",
        ],
        "napari_dycon.engine.training": ["qtpy", "napari", "psygnal", "typer", "SimpleITK"],
        "napari_dycon.exports.monai_bundle": ["qtpy", "napari", "psygnal", "typer"],
    },
]  # fmt: skip


def read_imports() -> dict[str, set[str]]:
    """Modules of the package that each one imports, also within functions and for types alone."""
    files = {}
    for file in PACKAGE.rglob("*.py"):
        if "bundle" in file.parts:  # runs elsewhere, without this package
            continue
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        found = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {name if name in files else str(node.module) for name in names}
        graph[module] = {name for name in found if name in files and name != module}
    return graph


def get_layer(module: str) -> int:
    room = [*module.split("."), "__init__"][1]
    found = [number for number, rooms in enumerate(LAYERS) if room in rooms]
    assert found, f"{module} is in no layer"
    return found[0]


def test_imports_go_down_only() -> None:
    upward = []
    for module, imported in read_imports().items():
        for name in imported:
            same = module.split(".")[1:2] == name.split(".")[1:2]
            if not same and get_layer(name) >= get_layer(module):
                upward.append(f"{module} imports {name}")
    assert upward == []


def test_the_engine_does_not_import_the_project() -> None:
    """Below ``run.py``, which prepares the data, training works on prepared cases alone."""
    for module, imported in read_imports().items():
        if module.startswith("napari_dycon.engine.training.") and not module.endswith(".run"):
            assert "napari_dycon.project.store" not in imported, module


def test_there_are_no_import_cycles() -> None:
    graph = read_imports()
    circles = []
    for start in graph:
        path = _find_path(graph, start)
        if path:
            circles.append(" -> ".join(path))
    assert circles == []


def _find_path(graph: dict[str, set[str]], start: str) -> list[str]:
    """Shortest way from a module back to itself; empty where there is none."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:
        for name in sorted(graph[way[-1]]):
            if name == start:
                return [*way, name]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


@pytest.mark.parametrize("absent", ABSENT, ids=["program", "engine"])
def test_imports_stay_light(absent: dict[str, list[str]]) -> None:
    code = (
        "import importlib, json, sys\n"
        "found = {}\n"
        "for module, names in json.loads(sys.argv[1]).items():\n"
        "    importlib.import_module(module)\n"
        "    found[module] = [name for name in names if name in sys.modules]\n"
        "print(json.dumps(found))"
    )
    sets = [set(names) for names in absent.values()]
    assert all(later <= earlier for earlier, later in itertools.pairwise(sets))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, json.dumps(absent)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == {module: [] for module in absent}


def test_every_package_has_a_docstring() -> None:
    for folder in sorted(PACKAGE.rglob("__init__.py")):
        text = ast.get_docstring(ast.parse(folder.read_text(encoding="utf-8")))
        assert text, f"{folder} has no docstring"


def test_folders_have_few_modules() -> None:
    for folder in PACKAGE.rglob("*"):
        if folder.is_dir():
            count = len(list(folder.glob("*.py")))
            assert count <= 20, f"{folder.name} holds {count} modules"
