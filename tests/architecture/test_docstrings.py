"""Names in the parameter sections of docstrings are those of the signatures and fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import napari_dycon

PACKAGE = Path(napari_dycon.__file__).parent
ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::\s|:?$)")
UNDERLINE = re.compile(r"-{3,}")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def list_documented_names(docstring: str, section: str) -> list[str]:
    """List the names of a NumPy section; its entries are the lines without indentation."""
    names: list[str] = []
    lines = docstring.splitlines()
    for number, line in enumerate(lines[:-1]):
        if line != section or not UNDERLINE.fullmatch(lines[number + 1]):
            continue
        for position in range(number + 2, len(lines)):
            following = lines[position + 1] if position + 1 < len(lines) else ""
            if UNDERLINE.fullmatch(following):  # title of the next section
                break
            entry = ENTRY.match(lines[position])
            if entry:
                names += [name.strip().lstrip("*") for name in entry["names"].split(",")]
    return names


def list_arguments(function: Function) -> set[str]:
    """Return the names of all parameters of a function."""
    arguments = function.args
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    found += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
    return {argument.arg for argument in found}


def list_fields(node: ast.ClassDef, bases: dict[str, ast.ClassDef]) -> tuple[set[str], set[str]]:
    """Return the parameters of ``__init__`` and the attributes of a class and its base classes."""
    parameters: set[str] = set()
    attributes: set[str] = set()
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            attributes.add(statement.target.id)
        elif isinstance(statement, ast.Assign):
            attributes |= {t.id for t in statement.targets if isinstance(t, ast.Name)}
        elif isinstance(statement, Function):
            attributes.add(statement.name)
            if statement.name == "__init__":
                parameters |= list_arguments(statement)
            attributes |= {
                inner.attr
                for inner in ast.walk(statement)
                if isinstance(inner, ast.Attribute)
                and isinstance(inner.ctx, ast.Store)
                and isinstance(inner.value, ast.Name)
                and inner.value.id == "self"
            }
    for base in node.bases:
        name = getattr(base, "id", getattr(base, "attr", None))
        if name in bases and bases[name] is not node:
            inherited_parameters, inherited_attributes = list_fields(bases[name], bases)
            parameters |= inherited_parameters
            attributes |= inherited_attributes
    return parameters, attributes


def find_unknown_names(path: Path, bases: dict[str, ast.ClassDef]) -> Iterator[str]:
    """Yield each documented name of a module that its signature or class does not have."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, Function | ast.ClassDef):
            continue
        docstring = ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef):
            parameters, attributes = list_fields(node, bases)
            expected = {
                "Parameters": parameters or attributes,
                "Attributes": parameters | attributes,
            }
        else:
            expected = {"Parameters": list_arguments(node)}
        for section, known in expected.items():
            for name in list_documented_names(docstring, section):
                if name not in known:
                    location = f"{path.name}:{node.lineno} {node.name}"
                    yield f"{location}: {section} lists '{name}', which does not exist"


def test_documented_names_exist() -> None:
    paths = sorted(PACKAGE.rglob("*.py"))
    bases = {
        node.name: node
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    assert [line for path in paths for line in find_unknown_names(path, bases)] == []


def test_unknown_names_are_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        'def run(a, *, b, **options):\n    """Run.\n\n    Parameters\n    ----------\n'
        "    a, c : first\n        Note: an explanation\n    **options : others\n\n"
        '    Returns\n    -------\n    result : int\n    """\n'
        'class Point:\n    """A point.\n\n    Attributes\n    ----------\n'
        '    x : first\n    z : third\n    """\n\n    x: int\n',
        encoding="utf-8",
    )
    assert list(find_unknown_names(module, {})) == [
        "module.py:1 run: Parameters lists 'c', which does not exist",
        "module.py:14 Point: Attributes lists 'z', which does not exist",
    ]
