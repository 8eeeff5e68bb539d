"""Functions, classes and folders stay small enough to be read in a sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import napari_dycon

PACKAGE = Path(napari_dycon.__file__).parent
MAX_FUNCTION_LINES, MAX_CLASS_LINES, MAX_FILE_LINES = 80, 300, 500


def list_definitions() -> Iterator[tuple[str, ast.AST, int]]:
    """Yield place, syntax tree and number of lines of each function and class."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{path.relative_to(PACKAGE)}:{node.name}", node, lines


def test_functions_and_classes_are_short() -> None:
    too_long = []
    for place, node, lines in list_definitions():
        limit = MAX_CLASS_LINES if isinstance(node, ast.ClassDef) else MAX_FUNCTION_LINES
        if lines > limit:
            too_long.append(f"{place} has {lines} lines")
    assert too_long == []


def test_files_are_short() -> None:
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py")}
    assert [str(path) for path, lines in lengths.items() if lines > MAX_FILE_LINES] == []
