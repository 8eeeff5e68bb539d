"""Pancreas-CT.

DICOM below ``PANCREAS_0001``, ``label0001.nii.gz`` in a sibling or parent folder. A label on
another grid than its scan is rejected: labels of the first release are upside down and have to be
converted first.
"""

from __future__ import annotations

from pathlib import Path

from napari_dycon.errors import UserError
from napari_dycon.project.importing.discovery import find_scans
from napari_dycon.project.importing.layouts.layout import Layout, LayoutCase


def read_pancreas_ct(folder: Path) -> Layout | None:
    """Read a dataset of this layout; ``None`` if the folder has another one."""
    patients = sorted(
        p for prefix in ("", "*/", "*/*/") for p in folder.glob(f"{prefix}PANCREAS_*") if p.is_dir()
    )
    if not patients:
        return None
    labels = {
        path.name[5:9]: path
        for prefix in ("", "*/", "*/*/")
        for path in sorted(folder.glob(f"{prefix}label[0-9][0-9][0-9][0-9].nii*"))
    }
    cases = []
    for patient in patients:
        scans = find_scans(patient, "images")
        if len(scans) != 1:
            raise UserError(
                f"{patient.name} contains {len(scans)} series; expected one. Move the others away."
            )
        label = labels.get(patient.name.removeprefix("PANCREAS_"))
        cases.append(LayoutCase(patient.name, list(scans[0].images), label))
    return Layout("Pancreas-CT", ("CT",), {1: "pancreas"}, cases)
