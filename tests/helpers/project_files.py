"""Direct access to the files of a project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_dycon.project.store import Project


def read_manifest(project: Project) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((project.path / "project.json").read_text("utf-8"))
    return values


def rewrite_manifest(project: Project, change: Callable[[dict[str, Any]], object]) -> Project:
    values = read_manifest(project)
    change(values)
    (project.path / "project.json").write_text(json.dumps(values), "utf-8")
    return Project.open(project.path)


def read_all_files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
