"""Left atrium 2018.

``ID/lgemri.nrrd`` and ``ID/laendo.nrrd`` (255 is the atrium), below a folder of the training set;
those below a testing set are cases without labels.
"""

from __future__ import annotations

from pathlib import Path

from napari_dycon.project.importing.layouts.layout import Layout, LayoutCase


def read_left_atrium(folder: Path) -> Layout | None:
    """Read a dataset of this layout; ``None`` if the folder has another one."""
    scans = [(scan, False) for scan in sorted(folder.glob("*/lgemri.nrrd"))]
    scans += [
        (scan, scan.parts[-3].casefold().startswith("test"))
        for scan in sorted(folder.glob("*/*/lgemri.nrrd"))
    ]
    if not scans:
        return None
    if all(test for _, test in scans):  # the testing set alone was chosen
        scans = [(scan, False) for scan, _ in scans]
    cases = []
    for scan, test in scans:
        label = scan.with_name("laendo.nrrd")
        has_label = label.is_file() and not test
        cases.append(LayoutCase(scan.parent.name, [scan], label if has_label else None, test))
    return Layout("Left atrium 2018", ("LGE MRI",), {1: "left atrium"}, cases, {255: 1})
