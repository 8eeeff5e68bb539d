"""Pictures of the report: uncertainty as in the window, a scale bar in each view."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.report_pages import read_page, write_predictions

from napari_dycon.core.colormaps import (
    DEFAULT_THRESHOLD,
    MAX_TINTED_FRACTION,
    choose_color_range,
    find_tint_threshold,
)
from napari_dycon.exports.report.figures import Picture, draw_case
from napari_dycon.exports.report.html import _describe_run
from napari_dycon.exports.report.statistics import CaseData, load_case_data
from napari_dycon.exports.report.write import write_report
from napari_dycon.project.store import Project


@pytest.fixture
def data(project: Project) -> CaseData:
    run = write_predictions(project, ["scan-0"])
    return load_case_data(project, project.get_case("scan-0"), run)


def draw(project: Project, data: CaseData, uncertainty: np.ndarray) -> Picture:
    changed = CaseData(**{**vars(data), "uncertainty": uncertainty})
    return draw_case(changed, project.classes, "scan-1")


def read_alpha(picture: Picture, tmp_path: Path) -> list[np.ndarray]:
    """Return the opacity of the three uncertainty images."""
    path = tmp_path / "page.html"
    path.write_text(f"<html><body>{picture.svg}</body></html>", encoding="utf-8")
    return [
        np.asarray(image.convert("RGBA"))[..., 3]
        for image in read_page(path).pictures
        if "P" in image.mode
    ]


def test_low_uncertainty_is_transparent(project: Project, data: CaseData, tmp_path: Path) -> None:
    assert data.scan is not None
    values = np.full(data.scan.shape, 0.25, np.float32)
    picture = draw(project, data, values)
    assert picture.threshold == pytest.approx(DEFAULT_THRESHOLD)
    alphas = read_alpha(picture, tmp_path)
    assert len(alphas) == 3
    assert max(alpha.max() for alpha in alphas) == 0
    values[:] = 0.1
    values[8:12, 8:14, 6:12] = 0.9
    alphas = read_alpha(draw(project, data, values), tmp_path)
    assert max(alpha.max() for alpha in alphas) > 150


def test_a_scan_that_is_uncertain_everywhere_stays_visible(
    project: Project, data: CaseData, tmp_path: Path
) -> None:
    assert data.scan is not None
    values = np.random.default_rng(0).uniform(0.5, 0.7, data.scan.shape).astype(np.float32)
    picture = draw(project, data, values)
    assert picture.threshold is not None
    assert picture.threshold > 0.6
    visible = np.concatenate([(alpha > 0).ravel() for alpha in read_alpha(picture, tmp_path)])
    assert visible.mean() < 3 * MAX_TINTED_FRACTION


def test_each_view_has_a_scale_bar_of_one_length(project: Project, data: CaseData) -> None:
    svg = draw_case(data, project.classes, "scan-1").svg
    lengths = re.findall(r">(\d+) mm</text>", svg)
    assert len(lengths) == 3
    assert len(set(lengths)) == 1


def test_the_page_tells_the_threshold_of_each_case(project: Project, tmp_path: Path) -> None:
    write_predictions(project, ["scan-0"])  # an uncertainty of 0.25 everywhere
    page = read_page(write_report(project, tmp_path / "out"))
    assert "colored above 0.30" in page.text
    assert "which is 0.30 or higher, so that at most 10% of a scan are colored" in page.text


def test_numbers_have_two_decimals(project: Project, tmp_path: Path) -> None:
    write_predictions(project, ["scan-0", "scan-1"])
    text = read_page(write_report(project, tmp_path / "out")).text
    assert re.search(r"Dice 0\.\d\d\)", text)
    assert not re.search(r"\b\d\.\d{4,}\b", text)


def test_methods_have_their_usual_names(project: Project) -> None:
    for method, name in (("dycon", "DyCON"), ("mean-teacher", "mean teacher"), ("new", "new")):
        run = project.runs.create("dycon", {"method": method})
        assert f"method {name}" in _describe_run(run, 1)
    run = project.runs.create("dycon", {"method": ["damaged"]})
    assert "damaged" in _describe_run(run, 1)


def test_colors_start_at_the_threshold_or_above() -> None:
    values = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 10, 10)
    assert find_tint_threshold(values) == pytest.approx(0.9, abs=0.12)
    assert choose_color_range(0.3, 0.1) == (0.3, 1.0)
    assert choose_color_range(0.3, 0.8) == (0.8, 1.0)
    low, high = choose_color_range(0.3, 1.0)
    assert low < high
