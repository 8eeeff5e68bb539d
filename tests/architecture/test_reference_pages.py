"""The generated parts of the pages in ``docs/`` are stored, complete and current."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = {"contributing", "architecture", "changelog"}  # read when the site is built


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_current(hooks: Any) -> None:
    outdated = [
        str(page.relative_to(ROOT))
        for page in hooks.list_pages()
        if hooks.update_page(text := page.read_text(encoding="utf-8")) != text
    ]
    assert outdated == [], "run: python docs/hooks.py"


def test_every_part_is_stored(hooks: Any) -> None:
    pages = [page.read_text(encoding="utf-8") for page in hooks.list_pages()]
    stored = [match[1] for page in pages for match in hooks.BLOCK.finditer(page)]
    marked = [match[1] for page in pages for match in hooks.MARKER.finditer(page)]
    assert sorted(stored) == sorted(set(hooks.GENERATORS) - FILES)
    assert sorted(marked) == sorted(hooks.GENERATORS)


def test_pages_can_be_read_in_a_clone(hooks: Any) -> None:
    for page, words in (
        ("cli", ("## predict", "`--time-limit`", "## runs")),
        ("configuration", ("`semi_supervised.start`", "`batch.patch_size`")),
        ("events", ("## validation", "`remaining_s`")),
    ):
        text = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
        for word in words:
            assert word in text, page


def test_a_part_is_replaced(hooks: Any) -> None:
    page = "a\n<!-- generated: events -->\nOLD TEXT\n\n<!-- end of events -->\nb\n"
    updated = hooks.update_page(page)
    assert updated.startswith("a\n<!-- generated: events -->\n\n## started")
    assert updated.endswith("\n\n<!-- end of events -->\nb\n")
    assert hooks.update_page(updated) == updated
    built = hooks.on_page_markdown(page)
    assert "<!--" not in built
    assert "OLD TEXT" not in built
    empty = "<!-- generated: events -->\n<!-- end of events -->"
    assert hooks.update_page(empty) == hooks.update_page(page)[2:-3]
