"""Files are grouped into cases of several channels by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import make_voxels, save_series
from helpers.nifti_files import save_nifti

from napari_dycon.errors import FileFormatError, UserError
from napari_dycon.project.importing.case_import import SkippedScan
from napari_dycon.project.importing.channel_matching import assign_channels, candidates_from
from napari_dycon.project.importing.patient_folders import find_patient_folders, resolve_scans

NOISE = np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)


def make_files(folder: Path, *names: str) -> list[Path]:
    return [save_nifti(folder / f"{name}.nii.gz", NOISE[..., 0]) for name in names]


def guess_assignment(
    paths: list[Path], *channels: str, examples: list[list[Path]] | None = None, sure: bool = False
) -> dict[str, list[str | None]]:
    rows = assign_channels(candidates_from(paths), channels, examples=examples or (), strict=sure)
    return {row.name: [path and path.name.split(".nii")[0] for path in row.images] for row in rows}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("p1_t1", "p1_flair", "p2-FLAIR", "p2-T1"),
            {"p1": ["p1_t1", "p1_flair"], "p2": ["p2-T1", "p2-FLAIR"]},
        ),
        (("t1", "flair"), {"in": ["t1", "flair"]}),
        (("a_0000", "a_0001"), {"a": ["a_0000", "a_0001"]}),
        # A longer name is another image of the patient.
        (("p1_t1", "p1_t1_post", "p1_flair"), {"p1": ["p1_t1", "p1_flair"]}),
        # Parts of words do not count, what is left over does.
        (("p1_t1ce", "p1_flair"), {"p1": ["p1_t1ce", "p1_flair"]}),
        (
            ("p1_t1ce", "p1_x", "p1_flair", "p2_t1"),
            {"p1": [None, "p1_flair"], "p2": ["p2_t1", None]},
        ),
        (("anna", "bert"), {"in": [None, None]}),
        (("p1_a", "p1_b", "p2_a"), {"p1": [None, None], "p2": [None, None]}),
        (("p1_t1_flair",), {"p1_t1": [None, None]}),  # names both channels
    ],
)
def test_channels_are_guessed_for_the_dialog(
    names: tuple[str, ...], expected: dict[str, list[str | None]], tmp_path: Path
) -> None:
    assert guess_assignment(make_files(tmp_path / "in", *names), "t1", "flair") == expected


def test_equal_file_names_in_several_folders_are_distinct_patients(tmp_path: Path) -> None:
    found = [p for n in ("p1", "p2") for p in make_files(tmp_path / n, "ax_t1", "ax_flair")]
    rows = assign_channels(candidates_from(found), ["t1", "flair"])
    assert [(row.name, row.images) for row in rows] == [
        ("p1", tuple(found[:2])), ("p2", tuple(found[2:])),
    ]  # fmt: skip
    assert candidates_from(found)[0].display_name == "p1/ax_t1.nii.gz"


def test_one_folder_per_channel_is_recognized(tmp_path: Path) -> None:
    found = [p for c in ("t1", "flair") for p in make_files(tmp_path / c, "anna", "bert")]
    rows = assign_channels(candidates_from(found), ["t1", "flair"], strict=True)
    assert [(row.name, row.images) for row in rows] == [
        ("anna", (found[0], found[2])), ("bert", (found[1], found[3])),
    ]  # fmt: skip


def test_channels_are_inferred_from_file_names_of_other_cases(tmp_path: Path) -> None:
    known = [make_files(tmp_path / "old", f"s{n}_dwi_x", f"s{n}_adc_x") for n in (1, 2)]
    new = make_files(tmp_path / "in", "s3_adc_x", "s3_dwi_x")
    channels = ("channel 1", "channel 2")
    assert guess_assignment(new, *channels, sure=True) == {}
    assert guess_assignment(new, *channels, examples=known) == {"s3_x": ["s3_dwi_x", "s3_adc_x"]}
    found = resolve_scans([tmp_path / "in"], channels, examples=known)
    assert [scan.images for scan in found] == [(new[1], new[0])]


def test_channels_of_a_4d_file_are_recognized(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", NOISE)
    candidates = candidates_from([path])
    assert [candidate.display_name for candidate in candidates] == [
        f"a.nii.gz, channel {n}" for n in (1, 2, 3)
    ]
    (row,) = assign_channels(candidates, ["x", "y", "z"])
    assert row.images == tuple(path.with_name(f"a.nii.gz#{n}") for n in range(3))
    (row,) = assign_channels(candidates, ["x", "y"])  # the user has to choose two
    assert row.images == (None, None)


def test_series_are_matched_by_description(tmp_path: Path) -> None:
    anna = tmp_path / "in" / "anna"
    t1 = save_series(anna / "1", make_voxels(), description="T1 MPRAGE")
    flair = save_series(anna / "2", make_voxels() + 1, description="ax flair")
    save_series(anna / "3", make_voxels()[:1], description="localizer")
    for chosen in ([anna], [t1[2], flair[0]]):
        candidates = candidates_from(chosen)
        assert sorted(candidate.display_name for candidate in candidates) == [
            "1: T1 MPRAGE",
            "2: ax flair",
        ]
        (row,) = assign_channels(candidates, ["flair", "t1"], strict=True)
        assert row.name == "anna"
        assert row.images == (min(flair), min(t1))
    text = tmp_path / "in" / "readme.txt"
    text.write_text("no scan")
    with pytest.raises(FileFormatError, match=r"readme\.txt is not a scan; expected NIfTI"):
        candidates_from([text])
    with pytest.raises(FileFormatError, match="does not exist"):
        candidates_from([tmp_path / "gone.nii.gz", tmp_path / "gone"])
    with pytest.raises(FileFormatError, match="No scan with several slices"):
        candidates_from([anna / "3"])


# ---- Folders for a project of several channels --------------------------------------------------


def test_folders_are_matched_to_the_channels_of_a_project(tmp_path: Path) -> None:
    channels = ["t1", "flair"]
    many = [
        make_files(tmp_path / "many" / p, f"{p}_t1", f"{p}_flair", f"{p}_seg") for p in ("a", "b")
    ]
    found = resolve_scans([tmp_path / "many"], channels)
    assert [(s.name, s.images) for s in found] == [(p[0].parent.name, tuple(p[:2])) for p in many]
    flat = make_files(tmp_path / "nnunet", "a_0000", "a_0001")
    assert resolve_scans([tmp_path / "nnunet"], channels)[0].images == tuple(flat)
    inside = make_files(tmp_path / "both" / "p1", "x_0001", "x_0000")
    assert resolve_scans([tmp_path / "both"], channels)[0].images == tuple(inside[::-1])
    four = save_nifti(tmp_path / "4d" / "p1" / "all.nii.gz", NOISE[..., :2])
    assert [p.name for p in find_patient_folders(tmp_path / "4d", channels)[0].images] == [
        "all.nii.gz#0", "all.nii.gz#1",
    ]  # fmt: skip
    (beside,) = resolve_scans([four.parent], channels)
    assert beside.name == "all"
    one = resolve_scans([tmp_path / "many" / "a"], channels)  # a patient's own folder
    assert [(s.name, s.images) for s in one] == [("a", tuple(many[0][:2]))]
    assert resolve_scans(many[0][:2], channels)[0].images == tuple(many[0][:2])
    assert [s.name for s in resolve_scans(many[0], ["image"])] == ["a_t1", "a_flair", "a_seg"]


def test_mismatches_are_reported_with_the_found_files(tmp_path: Path) -> None:
    make_files(tmp_path / "in", "anna", "bert")
    with pytest.raises(
        UserError,
        match=r"The folder in has no case with all channels .*\(t1, flair\)\. "
        r"Found: anna\.nii\.gz, bert\.nii\.gz\. Expected .*Add > Scan files",
    ):
        resolve_scans([tmp_path / "in"], ["t1", "flair"])
    make_files(tmp_path / "in", "c_t1", "c_flair", "d_t1")
    with pytest.raises(UserError, match="d does not have exactly one image for flair"):
        resolve_scans([tmp_path / "in"], ["t1", "flair"])
    out: list[SkippedScan] = []
    found = resolve_scans([tmp_path / "in"], ["t1", "flair"], on_skip=out.append)
    assert [scan.name for scan in found] == ["c"]
    assert [one.message for one in out] == [
        "d was left out: d does not have exactly one image for flair."
    ]
    make_files(tmp_path / "patients" / "anna", "anna_t1")
    with pytest.raises(UserError, match="Folder anna has no scans for the channel 'flair'"):
        resolve_scans([tmp_path / "patients"], ["t1", "flair"], on_skip=out.append)
