"""Untrusted projects: values and size of project.json."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.project_files import rewrite_manifest

from napari_dycon.errors import FileFormatError, ProjectError, UserError
from napari_dycon.project.case_ids import is_case_id, normalize_name
from napari_dycon.project.manifest import MAX_MANIFEST_BYTES
from napari_dycon.project.store import Project


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", "..", ".", "", " a", "a ", "a.", ".a", "con", "NUL", "com1.x", "Com9",
     "LPT\u00b9", "con .txt", "a:b", "a\nb", "a\x1b[31m", "a\0", "<b>", "x" * 151, "\u65e5" * 80,
     "a..b", "\ud800", "$(x)", "a|b"],
)  # fmt: skip
def test_unsafe_file_names_are_refused(name: str, project: Project) -> None:
    assert not is_case_id(name)
    with pytest.raises(ProjectError, match=r"project\.json"):
        rewrite_manifest(project, lambda values: values["cases"][0].update(id=name))


@pytest.mark.parametrize(
    "pair", [("Case", "case"), ("\u00e9", "E\u0301"), ("\uac00", "\u1100\u1161")]
)
def test_ids_that_some_file_systems_consider_equal_are_refused(
    pair: tuple[str, str], project: Project
) -> None:
    assert normalize_name(pair[0]) == normalize_name(pair[1])
    if all(map(is_case_id, pair)):
        with pytest.raises(ProjectError, match="must be unique"):
            rewrite_manifest(
                project,
                lambda v: [
                    case.update(id=name) for case, name in zip(v["cases"], pair, strict=False)
                ],
            )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[" * 100_000, "not valid JSON"),
        ('{"a":' * 50 + "1" + "}" * 50, "nested too deeply"),
        ('{"name": "a", "name": "b"}', "the name 'name' occurs twice"),
        ('{"schema_version": ' + "9" * 9999 + "}", "not valid JSON"),
        ('{"schema_version": NaN}', "not a JSON number"),
        ('{"schema_version": 1, "name": "a\ud800"}', "project.json"),
        ("null", "is not a project"),
        ('"x"', "is not a project"),
        ("", "not valid JSON"),
        ("\x00", "not valid JSON"),
    ],
)
def test_invalid_project_files_are_refused(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "project.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ProjectError, match=found) as caught:
        Project.open(tmp_path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(name="a\ud800"),
        lambda v: v["classes"][0].update(value=10**30),
        lambda v: v["classes"][0].update(value="1e999"),
        lambda v: v["classes"][0].update(name=["x"] * 10**5),
        lambda v: v.update(classes=v["classes"] * 300),
        lambda v: v.update(channels=["a"] * 10**5),
        lambda v: v.update(cases={"a": 1}),
        lambda v: v["cases"][0].update(images=["a"] * 10**5),
        lambda v: v["cases"][0].update(images="abc"),
        lambda v: v["cases"][0].update(status="<script>"),
        lambda v: v["cases"].append(v["cases"][0]),
        lambda v: v.update(surprise="x" * 10**6),
        lambda v: v.update(schema_version="1.0"),
        lambda v: v.update(schema_version=0),
        lambda v: v.update(schema_version=-(10**30)),
    ],
)
def test_values_out_of_range_are_reported_in_one_line(
    change: Callable[[dict[str, Any]], object], project: Project
) -> None:
    with pytest.raises(ProjectError, match=r"project\.json") as caught:
        rewrite_manifest(project, change)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_an_endless_project_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "project.json").open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(ProjectError, match="64 MB"):
        Project.open(tmp_path)


def test_a_project_of_100000_cases_opens_in_seconds(project: Project) -> None:
    many = 100_000
    rewrite_manifest(
        project,
        lambda values: values.update(
            cases=[
                {"id": f"case-{n}", "images": [f"../scans/{n % 50}/{n}.nii.gz"]}
                for n in range(many)
            ]
        ),
    )
    begin = time.monotonic()
    opened = Project.open(project.path)
    assert len(opened.cases) == many
    assert len(opened.unlabeled_cases()) == many
    assert len([opened.image_paths(case.id) for case in opened.cases[:2000]]) == 2000
    assert len(opened.external_folders()) == 50
    assert time.monotonic() - begin < 20  # 3 s on a quiet machine
    with pytest.raises(ProjectError, match="found twice: case-1"):
        rewrite_manifest(project, lambda values: values["cases"].append(values["cases"][1]))


def test_all_of_these_errors_are_user_errors() -> None:
    assert issubclass(ProjectError, UserError)
    assert issubclass(FileFormatError, UserError)
