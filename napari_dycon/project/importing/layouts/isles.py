"""ISLES 2022.

BIDS: ``sub-ID/ses-0001/dwi/*_dwi.nii.gz`` and ``*_adc.nii.gz``, masks below ``derivatives``. Its
FLAIR has another grid and is left out.
"""

from __future__ import annotations

from pathlib import Path

from napari_dycon.project.importing.layouts.layout import Layout, LayoutCase

CHANNELS = ("dwi", "adc")


def read_isles(folder: Path) -> Layout | None:
    """Read a dataset of this layout; ``None`` if the folder has another one."""
    cases = []
    root = folder / "rawdata" if (folder / "rawdata").is_dir() else folder
    # The archive has a folder dwi in every session, the challenge's repository has none.
    for dwi in sorted(
        {*root.glob("sub-*/ses-*/dwi/*_dwi.nii*"), *root.glob("sub-*/ses-*/*_dwi.nii*")}
    ):
        session = dwi.parents[1] if dwi.parent.name == "dwi" else dwi.parent
        subject = session.parent.name
        adc = next(iter(sorted(dwi.parent.glob("*_adc.nii*"))), None)
        if adc is None:  # later editions keep it outside the folder
            adc = next(iter(sorted(session.glob("**/*_adc.nii*"))), None)
        masks = sorted(folder.glob(f"derivatives/**/{subject}/**/*_msk.nii*"))
        cases.append(LayoutCase(subject, [dwi, adc], masks[0] if masks else None))
    return Layout("ISLES 2022", CHANNELS, {1: "infarct"}, cases) if cases else None
