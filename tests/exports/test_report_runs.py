"""The report takes every prediction there is, and tells what is missing."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import numpy as np
from helpers.report_pages import read_page, read_rows, write_predictions

from napari_dycon import __version__
from napari_dycon.exports.report.html import _format_date
from napari_dycon.exports.report.write import write_report
from napari_dycon.project.acceptances import record_acceptance
from napari_dycon.project.store import Project


def test_the_newest_prediction_of_each_case_is_reported(project: Project, tmp_path: Path) -> None:
    old = write_predictions(project, ["scan-0", "scan-1", "scan-3"], shift=1)
    new = write_predictions(project, ["scan-1", "scan-4"], shift=3)
    page = read_page(write_report(project, tmp_path / "out"))
    runs = {row["case"]: row["run"] for row in read_rows(tmp_path / "out")}
    assert runs == {
        "scan-0": old.id, "scan-1": new.id, "scan-2": "", "scan-3": old.id, "scan-4": new.id,
        "scan-5": "",
    }  # fmt: skip
    assert f"2 cases predicted by run {old.id}, method DyCON, 12 steps." in page.text
    assert f"2 cases predicted by run {new.id}, method DyCON, 12 steps." in page.text
    assert "The predictions are of several runs" in page.text
    dice = {row["case"]: row["dice"] for row in read_rows(tmp_path / "out")}
    assert float(dice["scan-0"]) > float(dice["scan-1"])


def test_a_run_whose_settings_are_damaged_is_reported(project: Project, tmp_path: Path) -> None:
    run = write_predictions(project, ["scan-0"])
    run.config_path.write_text("{")
    page = read_page(write_report(project, tmp_path / "out"))
    assert f"1 case predicted by run {run.id}." in page.text


def test_a_validation_case_without_prediction_is_named(project: Project, tmp_path: Path) -> None:
    project.set_split("scan-2", "validation")
    warning = "Validation case without a prediction: scan-2."
    assert warning not in read_page(write_report(project, tmp_path / "labels")).text
    write_predictions(project, ["scan-0"])
    assert warning in read_page(write_report(project, tmp_path / "out")).text
    write_predictions(project, ["scan-2"])
    assert warning not in read_page(write_report(project, tmp_path / "out")).text


def test_the_page_begins_with_project_date_and_version(project: Project, tmp_path: Path) -> None:
    text = read_page(write_report(project, tmp_path / "out")).text
    today = _format_date(date.today())
    assert f"{project.name} Report of {today}, napari-dycon {__version__}. 6 cases." in text
    assert _format_date(date(2026, 3, 5)) == "5 March 2026"


def test_gaps_are_one_cell_with_the_reason(project: Project, tmp_path: Path) -> None:
    path = write_report(project, tmp_path / "labels")
    text = path.read_text("utf-8")
    assert "Dice" not in read_page(path).text  # no column without predictions
    assert not re.search(r"<td[^>]*>–</td>", text)
    project.add_class("edema")
    write_predictions(project, ["scan-0", "scan-3"])
    path = write_report(project, tmp_path / "out")
    text = path.read_text("utf-8")
    bodies = re.findall(r"<tbody>.*?</tbody>", text.partition("<h2>Cases")[2], re.DOTALL)
    rows = {name: body for body in bodies for name in re.findall(r"scan-\d", body)}
    assert "no prediction" in rows["scan-1"]
    assert "no label" in rows["scan-3"]
    assert rows["scan-5"].count("<tr>") == 1
    assert "no label, no prediction" in rows["scan-5"]
    for case in ("scan-1", "scan-3", "scan-5"):
        assert "–" not in rows[case]
    assert_rectangular(text)


def assert_rectangular(text: str) -> None:
    """All rows of the table of cases have as many columns, with spans."""
    table = text.partition("<h2>Cases")[2].partition("</table>")[0]
    n_columns = len(re.findall(r"<th\b", table))
    for body in re.findall(r"<tbody>.*?</tbody>", table, re.DOTALL):
        taken: dict[int, int] = {}
        rows = re.findall(r"<tr>.*?</tr>", body, re.DOTALL)
        for number, row in enumerate(rows):
            for attributes in re.findall(r"<td([^>]*)>", row):
                spans = {
                    key: int(found[1]) if (found := re.search(rf'{key}="(\d+)"', attributes)) else 1
                    for key in ("colspan", "rowspan")
                }
                for below in range(number, number + spans["rowspan"]):
                    taken[below] = taken.get(below, 0) + spans["colspan"]
        assert taken == dict.fromkeys(range(len(rows)), n_columns), body


def test_tables_are_rectangular_in_every_mixture(project: Project, tmp_path: Path) -> None:
    project.add_class("edema")
    label = project.labels.read("scan-1")
    assert label is not None
    sparse = np.full_like(label, 255)
    sparse[8] = label[8]
    project.labels.save("scan-1", sparse)
    project.image_paths("scan-5")[0].unlink()
    assert_rectangular(write_report(project, tmp_path / "a").read_text("utf-8"))
    write_predictions(project, ["scan-0", "scan-1", "scan-3"])
    assert_rectangular(write_report(project, tmp_path / "b").read_text("utf-8"))
    write_predictions(project, ["scan-2"], shift=0)
    assert_rectangular(write_report(project, tmp_path / "c").read_text("utf-8"))


def test_an_accepted_prediction_that_was_corrected_is_not_compared_either(
    project: Project, tmp_path: Path
) -> None:
    write_predictions(project, ["scan-0"], shift=0)
    run = project.runs.list()[-1].id
    before = project.labels.read("scan-0")
    accepted = project.predictions.read(run, "scan-0")
    assert before is not None
    assert accepted is not None
    record_acceptance(project, run, "scan-0", np.zeros_like(before), accepted)
    corrected = accepted.copy()
    corrected[:2] = 0
    corrected[0, 0, :3] = 1
    project.labels.save("scan-0", corrected)
    write_report(project, tmp_path / "out", cases=["scan-0"])
    (row,) = read_rows(tmp_path / "out")
    assert row["dice"] == ""
    assert "accepted prediction" in row["notes"]


def test_an_accepted_prediction_is_not_compared_with_itself(
    project: Project, tmp_path: Path
) -> None:
    project.set_split("scan-0", "validation")
    write_predictions(project, ["scan-0"], shift=0)
    page = read_page(write_report(project, tmp_path / "out", cases=["scan-0"]))
    (row,) = read_rows(tmp_path / "out")
    assert (row["dice"], row["hd95_mm"]) == ("", "")
    assert "accepted prediction" in row["notes"]
    assert "the label comes from this prediction" in page.text
    assert "1.000" not in page.text
    assert "Mean over fully annotated cases" not in page.text
