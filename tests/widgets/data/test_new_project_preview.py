"""The dialog of a new project says what the chosen folders contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.nifti_files import save_nifti

from napari_dycon.widgets.dialogs.new_project import (
    NewProjectDialog,
    describe_folders,
    suggest_project_folder,
)


def test_scans_and_labels_are_counted(scans: Path) -> None:
    assert describe_folders(scans / "images", scans / "labels", None) == (
        "6 cases, 1 channel (image), 3 labels"
    )
    assert describe_folders(scans / "images", None, None).endswith("0 labels")
    assert describe_folders(scans / "missing", None, None).endswith("is not a folder.")
    assert "contains no scans" in describe_folders(scans, None, None)


def test_a_known_layout_is_named(tmp_path: Path) -> None:
    import json

    shape = np.zeros((6, 6, 6), np.int16)
    for case in ("a", "b"):
        for channel in range(2):
            save_nifti(tmp_path / "imagesTr" / f"{case}_{channel:04d}.nii.gz", shape)
    save_nifti(tmp_path / "labelsTr" / "a.nii.gz", shape)
    description = {
        "channel_names": {"0": "t1", "1": "flair"},
        "labels": {"background": 0, "tumor": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description), "utf-8")
    text = describe_folders(tmp_path, None, None)
    assert text.startswith("Dataset ")
    assert "2 channels (t1, flair)" in text
    assert text.endswith("Structures: tumor")


def test_the_suggested_folder_is_named_after_the_data(tmp_path: Path) -> None:
    assert suggest_project_folder(tmp_path / "atrium" / "images").name == "atrium-dycon"
    assert suggest_project_folder(tmp_path / "atrium" / "images").parent == tmp_path / "atrium"
    assert suggest_project_folder(tmp_path / "atrium").name == "atrium-dycon"


@pytest.mark.gui
def test_the_preview_follows_the_folder(needs_display: None, qtbot: Any, scans: Path) -> None:
    from qtpy.QtWidgets import QWidget

    parent = QWidget()
    qtbot.addWidget(parent)
    dialog = NewProjectDialog(parent, scans / "images")
    qtbot.waitUntil(lambda: dialog.found_label.text().startswith("6 cases"), timeout=5_000)
    dialog.labels.setText(str(scans / "labels"))
    qtbot.waitUntil(lambda: dialog.found_label.text().endswith("3 labels"), timeout=5_000)
    dialog.images.setText(str(scans / "nothing"))
    qtbot.waitUntil(lambda: "is not a folder" in dialog.found_label.text(), timeout=5_000)
    dialog.reject()
