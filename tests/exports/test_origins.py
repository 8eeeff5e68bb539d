"""Exports never mix silently: which cases are written, as what, and what the files say of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from helpers.dicom_files import OBLIQUE, make_voxels, save_series

from napari_dycon import __version__
from napari_dycon import io as image_io
from napari_dycon.errors import UserError
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.registry import export
from napari_dycon.exports.selection import (
    MaskOrigin,
    PlannedMask,
    Reason,
    plan_masks,
    summarize_selection,
)
from napari_dycon.project.acceptances import record_acceptance, update_after_undo
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project
from napari_dycon.session import Session

ALL: dict[str, Any] = {"include_partial": True, "include_unreviewed": True}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mixed(tmp_path: Path) -> Project:
    """Series that are drawn, in part with and without prediction, predicted, accepted, untouched.

    The structures are 1 (drawn everywhere) and 2 (predicted everywhere, drawn only in "drawn").
    """
    names = ("accepted", "drawn", "part", "part-predicted", "predicted", "untouched")
    for name in names:
        save_series(tmp_path / "scans" / name, make_voxels(), directions=OBLIQUE)
    project = create_project(tmp_path / "p", tmp_path / "scans", classes=["pancreas", "cyst"])
    shape = project.read_image("drawn").shape
    prediction = np.zeros(shape, np.uint8)
    prediction[1:3, 1:4, 1:4] = 1
    prediction[3] = 2
    heat = np.full(shape, 0.25, np.float32)
    run = project.runs.create("dycon", {})
    for name in ("accepted", "part-predicted", "predicted"):
        project.predictions.write(run.id, name, prediction, heat, heat)
    drawn = np.zeros(shape, np.uint8)
    drawn[1:3, 2:4, 1:5] = 1
    drawn[3, 3, 3] = 2
    part = np.full(shape, 255, np.uint8)
    part[2] = 0
    part[2, 2:4, 2:4] = 1
    project.labels.save("drawn", drawn, status=Status.REVIEWED)
    project.labels.save("accepted", prediction)
    project.labels.save("part", part)
    project.labels.save("part-predicted", part)
    return project


def read_origins(folder: Path) -> dict[str, dict[str, str]]:
    text = (folder / "origins.csv").read_bytes().decode("utf-8-sig")
    return {row["case"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}


def test_only_finished_masks_are_exported_unless_requested(mixed: Project, tmp_path: Path) -> None:
    result = export(mixed, "nifti", tmp_path / "a")
    assert [mask.case for mask in result.masks] == ["accepted", "drawn"]
    assert {case.case: case.reason for case in result.left_out} == {
        "part": Reason.IN_PROGRESS,
        "part-predicted": Reason.IN_PROGRESS,
        "predicted": Reason.NOT_REVIEWED,
        "untouched": Reason.NOTHING,
    }
    assert not (tmp_path / "a" / "part.nii.gz").exists()
    assert not (tmp_path / "a" / "predicted.nii.gz").exists()
    text = result.describe()
    assert text.startswith("Exported 2 of 6 cases to ")
    assert "2 in progress" in text
    assert "1 with a prediction that is not reviewed" in text
    assert "1 without label or prediction" in text


def test_a_part_is_completed_by_a_prediction_only_when_both_are_requested(
    mixed: Project, tmp_path: Path
) -> None:
    drawn_only = ExportOptions(include_partial=True)
    result = export(mixed, "nifti", tmp_path / "a", drawn_only)
    assert {mask.case: mask.origin for mask in result.masks} == {
        "accepted": MaskOrigin.ACCEPTED,
        "drawn": MaskOrigin.DRAWN,
        "part": MaskOrigin.PARTIAL,
        "part-predicted": MaskOrigin.PARTIAL,
    }
    label = mixed.labels.read("part-predicted")
    mask = image_io.read_label(tmp_path / "a" / "part-predicted.nii.gz").array
    assert np.array_equal(mask, label)  # nothing of the prediction is in it
    result = export(mixed, "nifti", tmp_path / "b", ExportOptions(**ALL))
    assert {mask.case: mask.origin for mask in result.masks} == {
        "accepted": MaskOrigin.ACCEPTED,
        "drawn": MaskOrigin.DRAWN,
        "part": MaskOrigin.PARTIAL,
        "part-predicted": MaskOrigin.COMPLETED,
        "predicted": MaskOrigin.PREDICTED,
    }
    assert "(2 from predictions, 1 drawn in part)" in result.describe()
    predicted = mixed.predictions.read("001-dycon", "part-predicted")
    mask = image_io.read_label(tmp_path / "b" / "part-predicted.nii.gz").array
    assert np.array_equal(mask, np.where(label == 255, predicted, label))


def test_the_voxels_decide_when_the_status_is_wrong(mixed: Project, tmp_path: Path) -> None:
    mixed.set_status("part", Status.LABELED)  # as another program could do
    for format_ in ("nifti", "dicom-seg"):
        result = export(mixed, format_, tmp_path / format_)
        assert "part" not in [mask.case for mask in result.masks]
        assert ("part", Reason.IN_PROGRESS) in [(c.case, c.reason) for c in result.left_out]
    mixed.set_status("drawn", Status.IN_PROGRESS)  # the user wants to go on with it
    planned = {mask.case: mask for mask in plan_masks(mixed, ExportOptions())}
    assert planned["drawn"].origin is MaskOrigin.DRAWN
    assert planned["drawn"].left_out is Reason.IN_PROGRESS


def test_origins_are_written_and_kept_for_files_of_earlier_exports(
    mixed: Project, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export(mixed, "nifti", out, ExportOptions(**ALL))
    rows = read_origins(out)
    assert rows["drawn"] == {
        "case": "drawn", "file": "drawn.nii.gz", "origin": "drawn", "run": "",
        "status": "reviewed", "reviewed": "yes",
    }  # fmt: skip
    assert rows["accepted"]["origin"] == "accepted prediction"
    assert rows["part"]["origin"] == "drawn in part"
    completed = rows["part-predicted"]
    assert completed["origin"] == "drawn in part, rest from prediction"
    assert (completed["run"], completed["reviewed"]) == ("001-dycon", "no")
    assert rows["predicted"]["origin"] == "prediction only"
    assert "untouched" not in rows
    (out / "part.nii.gz").unlink()
    export(mixed, "nifti", out, ExportOptions(cases=["drawn"]))
    again = read_origins(out)
    assert set(again) == {"accepted", "drawn", "part-predicted", "predicted"}
    assert {name: rows[name] for name in again} == again  # also the empty run of a drawn mask
    export(mixed, "nrrd", out, ExportOptions(cases=["drawn"]))
    with (out / "origins.csv").open(encoding="utf-8-sig", newline="") as file:
        runs = {row["file"]: row["run"] for row in csv.DictReader(file)}
    assert runs["drawn.nii.gz"] == runs["drawn.nrrd"] == ""
    (out / "drawn.nrrd").unlink()
    for damaged in (b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b'"'):
        (out / "origins.csv").write_bytes(damaged)
        export(mixed, "nifti", out, ExportOptions(cases=["drawn"]))
        assert set(read_origins(out)) == {"drawn"}


def test_origins_are_written_when_an_export_ends_early(mixed: Project, tmp_path: Path) -> None:
    class CanceledError(Exception):
        pass

    def cancel(done: int, _total: int, _case: str) -> None:
        if done == 2:
            raise CanceledError

    with pytest.raises(CanceledError):
        export(mixed, "nifti", tmp_path / "a", ExportOptions(**ALL), on_progress=cancel)
    assert set(read_origins(tmp_path / "a")) == {"accepted", "drawn"}
    mixed.predictions.path("001-dycon", "predicted").write_bytes(b"damaged")
    with pytest.raises(UserError):
        export(mixed, "nifti", tmp_path / "b", ExportOptions(**ALL))
    masks = {path.name for path in (tmp_path / "b").glob("*.nii.gz")}
    assert {row["file"] for row in read_origins(tmp_path / "b").values()} == masks


def test_dicom_segments_say_who_made_them(mixed: Project, tmp_path: Path) -> None:
    export(mixed, "dicom-seg", tmp_path / "out", ExportOptions(**ALL))

    def read(case: str) -> tuple[dict[str, str], Any]:
        data = hd.seg.segread(tmp_path / "out" / f"{case}.dcm")
        for segment in data.SegmentSequence:
            is_manual = segment.SegmentAlgorithmType == "MANUAL"
            assert ("SegmentAlgorithmName" not in segment) == is_manual
            if not is_manual:
                assert segment.SegmentAlgorithmName == "napari-dycon"
                (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
                assert algorithm.AlgorithmVersion == __version__
        types = {s.SegmentLabel: s.SegmentAlgorithmType for s in data.SegmentSequence}
        return types, data

    types, data = read("drawn")
    assert types == {"pancreas": "MANUAL", "cyst": "MANUAL"}
    assert data.ContentDescription == "Drawn; reviewed"
    assert data.SeriesDescription == "napari-dycon segmentation, reviewed"
    types, data = read("accepted")
    assert types == {"pancreas": "SEMIAUTOMATIC", "cyst": "SEMIAUTOMATIC"}
    assert data.ContentDescription == "Accepted prediction; not reviewed"
    assert data.SeriesDescription == "napari-dycon segmentation, not reviewed"
    types, data = read("part")
    assert types == {"pancreas": "MANUAL"}
    assert data.ContentDescription == "Drawn in part; not reviewed"
    types, data = read("part-predicted")
    assert types == {"pancreas": "SEMIAUTOMATIC", "cyst": "AUTOMATIC"}
    assert data.ContentDescription == "Drawn in part, rest from prediction; not reviewed"
    types, data = read("predicted")
    assert types == {"pancreas": "AUTOMATIC", "cyst": "AUTOMATIC"}
    for path in (tmp_path / "out").glob("*.dcm"):
        data = hd.seg.segread(path)
        assert data.ContentCreatorName in (None, "")
        assert b"Secret" not in path.read_bytes()


def test_labels_made_from_predictions_are_told_from_drawn_ones(
    mixed: Project, tmp_path: Path
) -> None:
    def get_type(case: str) -> str:
        options = ExportOptions(cases=[case], include_partial=True)
        export(mixed, "dicom-seg", tmp_path / "out", options)
        data = hd.seg.segread(tmp_path / "out" / f"{case}.dcm")
        return str(data.SegmentSequence[0].SegmentAlgorithmType)

    drawn = mixed.labels.read("drawn")
    nothing = np.zeros(drawn.shape, np.float32)
    other = np.roll(drawn, 1, axis=2)
    mixed.predictions.write("001-dycon", "drawn", other, nothing, nothing)
    assert get_type("drawn") == "MANUAL"  # whatever was predicted before or after
    record_acceptance(mixed, "001-dycon", "drawn", np.zeros_like(drawn), other)
    assert get_type("drawn") == "SEMIAUTOMATIC"  # accepted, then corrected
    (planned,) = (m for m in plan_masks(mixed, ExportOptions()) if m.case == "drawn")
    assert planned.origin is MaskOrigin.CORRECTED
    assert planned.left_out is None
    update_after_undo(mixed, "001-dycon", "drawn", np.zeros_like(drawn))
    assert get_type("drawn") == "MANUAL"  # undone, then drawn

    part = mixed.labels.read("part-predicted")
    assert get_type("part-predicted") == "MANUAL"
    record_acceptance(mixed, "001-dycon", "part-predicted", np.full_like(part, 255), part)
    assert get_type("part-predicted") == "SEMIAUTOMATIC"


def test_half_drawn_scans_become_dicom_only_on_request(mixed: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 in progress.*--include-partial"):
        export(mixed, "dicom-seg", tmp_path / "out", ExportOptions(cases=["part"]))
    assert not (tmp_path / "out").exists()
    cases = ["part", "part-predicted", "predicted", "untouched"]
    with pytest.raises(UserError, match=r"2 in progress, .*--include-partial --include-unrev"):
        export(mixed, "dicom-seg", tmp_path / "out", ExportOptions(cases=cases))
    notes: list[str] = []
    options = ExportOptions(cases=["part"], include_partial=True)
    export(mixed, "dicom-seg", tmp_path / "out", options, on_note=notes.append)
    assert notes == [
        "part is drawn in part: what is not drawn counts as background in the DICOM file."
    ]


def test_a_plan_without_reading_labels_follows_the_status(mixed: Project) -> None:
    for case in ("part", "accepted"):
        mixed.labels.path(case).write_bytes(b"damaged")
    planned = {mask.case: mask for mask in plan_masks(mixed, ExportOptions(**ALL))}
    assert planned["part"].origin is MaskOrigin.PARTIAL
    assert planned["accepted"].origin is MaskOrigin.DRAWN
    seen: list[int] = []
    plan_masks(mixed, ExportOptions(), on_progress=lambda done, _total, _case: seen.append(done))
    assert seen == [1, 2, 3, 4, 5, 6]
    assert not any(mask.left_out for mask in planned.values() if mask.case != "untouched")


def test_a_selection_is_summarized() -> None:
    def make(origin: MaskOrigin) -> PlannedMask:
        return PlannedMask("a", Status.LABELED, origin, None)

    masks = [make(MaskOrigin.DRAWN), make(MaskOrigin.PREDICTED), make(MaskOrigin.COMPLETED)]
    assert summarize_selection(masks, 12) == "3 of 12 cases; 2 from predictions"
    masks.append(make(MaskOrigin.PARTIAL))
    assert summarize_selection(masks, 12).endswith("2 from predictions, 1 drawn in part")
    assert summarize_selection([], 1) == "0 of 1 case"


def test_the_command_lists_what_is_written_and_left_out(
    run: Run, mixed: Project, tmp_path: Path
) -> None:
    command = ("export", mixed.path, "--format", "nifti", "--out", tmp_path / "out")
    code, out, err = run(*command)
    assert code == 0
    assert "accepted prediction" in out
    assert "left out: in progress; see --include-partial" in out
    assert "left out: prediction not reviewed; see --include-unreviewed" in out
    assert "Exported 2 of 6 cases" in err
    code, out, _ = run(*command, "--include-partial", "--include-unreviewed", "--json")
    assert code == 0
    made = json.loads(out)
    assert {row["case"]: row["origin"] for row in made["cases"]}["predicted"] == "prediction only"
    assert made["left_out"] == [{"case": "untouched", "reason": "without label or prediction"}]
    code, out, err = run(*command, "--cases", "predicted")
    assert (code, out) == (2, "")
    assert "--include-unreviewed" in err


def test_scripts_include_by_parameters(mixed: Project, tmp_path: Path) -> None:
    session = Session()
    session.open_project(mixed.path)
    messages: list[str] = []
    session.message.connect(lambda _level, text: messages.append(text))
    results: list[Any] = []
    session.import_export.exported.connect(results.append)
    session.export("nifti", tmp_path / "a")
    assert messages[-1].startswith("Exported 2 of 6 cases to ")
    session.export("nifti", tmp_path / "b", include_partial=True, include_unreviewed=True)
    assert messages[-1].startswith("Exported 5 of 6 cases")
    assert [len(result.masks) for result in results] == [2, 5]
