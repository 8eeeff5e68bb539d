"""Reports as a browser reads them, and predictions to report."""

from __future__ import annotations

import base64
import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from napari_dycon.core.atomic import write_json
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

VOID = {"meta", "br", "image", "use", "path"}


class Page(HTMLParser):
    """Reads a page, checks that its elements close, keeps text and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def pictures(self) -> list[Image.Image]:
        start = "data:image/png;base64,"
        found = [link.removeprefix(start) for link in self.links if link.startswith(start)]
        return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def read_page(path: Path) -> Page:
    """Read a report and check what holds for every one."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert re.search(r"\b(19|20)\d\d-\d\d", text) is None
    return page


def read_rows(folder: Path) -> list[dict[str, str]]:
    text = (folder / "cases.csv").read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def write_predictions(project: Project, cases: list[str], shift: int = 1) -> Run:
    """A run, and of some cases a prediction: the labels of the first case, moved."""
    run = project.runs.create("dycon", {"method": "dycon"})
    write_json(run.metrics_path, {"step": 12, "labeled": ["scan-0", "scan-1"]})
    for case in cases:
        known = project.labels.read(case)
        mask = np.zeros(project.read_image(case).shape, np.uint8)
        if known is None:
            mask[5:9, 5:9, 5:9] = 1
        else:
            mask = np.roll(np.where(known == 255, 0, known), shift, 0).astype(np.uint8)
        heat = np.full(mask.shape, 0.25, np.float32)
        project.predictions.write(run.id, case, mask, heat, heat)
    return run
