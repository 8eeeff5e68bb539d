"""``export`` says what was written, and numbers datasets of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from napari_dycon.project.store import Project

Run = Callable[..., tuple[int, str, str]]


def test_datasets_of_nnunet_have_numbers(run: Run, project: Project, tmp_path: Path) -> None:
    project.set_split("scan-0", "validation")
    arguments = ("export", project.path, "--format", "nnunet", "--out", tmp_path / "raw")
    code, out, err = run(*arguments)
    assert code == 0
    assert f"Wrote {tmp_path / 'raw' / 'Dataset001_project'}" in out
    assert "3 cases with labels in imagesTr and labelsTr, 3 files of cases without" in err
    assert "splits_final.json has the validation cases" in err
    assert "nnUNetv2_plan_and_preprocess -d 1" in err
    assert "Dataset002_project" in run(*arguments)[1]  # nothing is replaced
    code, out, _ = run(*arguments, "--dataset-id", 27, "--json")
    result = json.loads(out)
    assert result["written"] == [str(tmp_path / "raw" / "Dataset027_project")]
    assert result["details"][-1].endswith("-d 27")
    code, _, err = run(*arguments, "--dataset-id", 2)
    assert code == 2
    assert "Choose another number, such as 3, or another folder." in err
    assert run(*arguments, "--dataset-id", 1000)[0] == 2


def test_a_report_names_its_files(run: Run, project: Project, tmp_path: Path) -> None:
    code, out, err = run("export", project.path, "--format", "report", "--out", tmp_path / "r")
    assert code == 0
    assert out.splitlines() == [
        f"Wrote {tmp_path / 'r' / 'report.html'}",
        f"Wrote {tmp_path / 'r' / 'cases.csv'}",
    ]
    assert "report.html describes 6 cases; cases.csv has the numbers." in err


def test_options_without_effect_are_refused(run: Run, project: Project, tmp_path: Path) -> None:
    for format_, arguments, words in (
        ("nnunet", ["--source", "predictions"], "nnunet does not use --source."),
        ("nnunet", ["--run", "1", "--uncertainty"], "does not use --run and --uncertainty."),
        ("nnunet", ["--cases", "scan-0"], "cannot be limited to cases"),
        ("report", ["--dataset-id", "3"], "report does not use --dataset-id."),
        ("monai-bundle", ["--include-unreviewed"], "does not use --include-unreviewed."),
        ("nifti", ["--dicom-code", "box=Liver"], "nifti does not use --dicom-code."),
        ("nrrd", ["--keep-identity"], "nrrd does not use --keep-identity."),
    ):
        out = tmp_path / format_
        code, _, err = run("export", project.path, "--format", format_, "--out", out, *arguments)
        assert code == 2
        assert words in err
        assert not out.exists()


def test_the_network_of_a_bundle_is_described(run: Run, project: Project, tmp_path: Path) -> None:
    for n_steps in (6, 2):
        train = ("train", project.path, "--steps", n_steps, "--device", "cpu")
        settings = ("batch.patch_size=[16,16,16]", "network.filters=[4,8,8]")
        assert run(*train, *(part for one in settings for part in ("--set", one)))[0] == 0
    arguments = ("export", project.path, "--format", "monai-bundle", "--out")
    code, _, err = run(*arguments, tmp_path / "a")
    assert code == 0
    assert "Run 002-dycon, the newest: 2 steps" in err
    assert "a network has hardly learned: expect poor predictions." in err
    assert "to use it, give --run 001-dycon." in err
    assert "Run 001-dycon: 6 steps" in run(*arguments, tmp_path / "b", "--run", "001-dycon")[2]
