"""Labels from files are exported as imported, until someone changes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_dycon.errors import BusyError, DyconError
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.registry import export
from napari_dycon.exports.selection import MaskOrigin, is_selected_by_default, plan_masks
from napari_dycon.project.imported_labels import get_import_record_path, get_import_state
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project


def export_origins(project: Project, out: Path) -> dict[str, MaskOrigin]:
    return {mask.case: mask.origin for mask in export(project, "nifti", out).masks}


def test_imported_labels_are_told_from_drawn_ones(project: Project, tmp_path: Path) -> None:
    drawn = np.ones_like(project.labels.read("scan-0"))
    project.labels.save("scan-3", drawn)
    project.labels.save("scan-1", drawn, status=Status.REVIEWED)  # changed by the user
    project.labels.save("scan-2", project.labels.read("scan-2"))  # saved without a change
    expected = {
        "scan-0": MaskOrigin.IMPORTED,
        "scan-1": MaskOrigin.CHANGED,
        "scan-2": MaskOrigin.IMPORTED,
        "scan-3": MaskOrigin.DRAWN,
    }
    assert export_origins(project, tmp_path / "out") == expected
    planned = [mask for mask in plan_masks(project, ExportOptions()) if mask.origin is not None]
    assert {mask.case: mask.origin for mask in planned} == expected
    assert all(is_selected_by_default(mask, "auto") for mask in planned)
    # Without reading voxels, a change is not known.
    quick = {m.case: m.origin for m in plan_masks(project, ExportOptions(), read_labels=False)}
    assert quick["scan-0"] is quick["scan-1"] is MaskOrigin.IMPORTED
    assert quick["scan-3"] is MaskOrigin.DRAWN


def test_a_prediction_equal_to_an_imported_label_changes_nothing(
    project: Project, tmp_path: Path
) -> None:
    label = project.labels.read("scan-0")
    heat = np.zeros(label.shape, np.float32)
    project.predictions.write(project.runs.create("dycon", {}).id, "scan-0", label, heat, heat)
    assert export_origins(project, tmp_path / "out")["scan-0"] is MaskOrigin.IMPORTED


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"checksum": "1"}', '{"checksum": -1}', None])
def test_without_a_valid_record_a_label_counts_as_drawn(
    text: str | None, project: Project, tmp_path: Path
) -> None:
    record = get_import_record_path(project.path, "scan-0")
    if text is None:  # a project of an earlier version
        record.unlink()
    else:
        record.write_text(text)
    assert export_origins(project, tmp_path / "out")["scan-0"] is MaskOrigin.DRAWN


def test_a_record_outside_the_project_is_ignored(project: Project, tmp_path: Path) -> None:
    record = get_import_record_path(project.path, "scan-0")
    outside = tmp_path / "outside.json"
    record.rename(outside)
    record.symlink_to(outside)
    label = project.labels.read("scan-0")
    assert get_import_state(project.path, "scan-0", label) is None


def test_no_record_is_left_of_an_import_that_failed(
    project: Project, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BusyError("full")

    monkeypatch.setattr("napari_dycon.io.write_mask", fail)
    other = Project.create(tmp_path / "other", classes=project.classes, channels=project.channels)
    with pytest.raises(DyconError, match="full"):
        other.add_cases(
            [scans / "images" / "scan-0.nii.gz"],
            labels={"scan-0": scans / "labels" / "scan-0.nii.gz"},
        )
    assert not list((other.path / "labels").rglob("*.json"))
