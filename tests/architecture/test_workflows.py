"""Files that GitHub reads are well-formed, and workflows run what the Makefile has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_well_formed(path: Path) -> None:
    content = load_yaml(path)
    assert content["name"] == path.stem
    assert content[True], "the key 'on' is read as true by YAML 1.1"
    assert "permissions" in content
    jobs = content["jobs"]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for job in jobs.values():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(jobs)
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w./-]+@[\w./-]+", step["uses"])
            for target in re.findall(r"\bmake ([a-z]+)", step.get("run", "")):
                assert target in targets, f"make {target}"


def test_the_matrix_covers_the_supported_versions() -> None:
    matrix = load_yaml(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]["strategy"][
        "matrix"
    ]
    assert {"ubuntu-latest", "windows-latest", "macos-latest"} == set(matrix["os"])
    classifiers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert matrix["python"] == re.findall(r"Python :: (3\.\d+)\"", classifiers)
    assert matrix["qt"] == ["pyqt5", "pyqt6"]


@pytest.mark.parametrize("path", [p for p in FORMS if p.stem != "config"], ids=lambda p: p.name)
def test_issue_forms_are_well_formed(path: Path) -> None:
    form = load_yaml(path)
    assert form.keys() >= {"name", "description", "body"}
    for part in form["body"]:
        assert part["type"] in {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert part["attributes"].get("label") or part["attributes"].get("value")


@pytest.mark.parametrize(
    "name", [".github/dependabot.yml", ".napari-hub/config.yml", "CITATION.cff"]
)
def test_other_files_are_well_formed(name: str) -> None:
    assert load_yaml(ROOT / name)
