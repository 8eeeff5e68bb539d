"""The manifest is valid and found, installed from the source tree and from a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from helpers.nifti_files import save_nifti

from napari_dycon.demo.sample import sample_case
from napari_dycon.io import read_volume
from napari_dycon.widgets.plugin.readers import get_reader

ROOT = Path(__file__).parents[2]


def run(*arguments: object, cwd: Path, path: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_manifest_is_valid_where_it_is_installed(tmp_path: Path) -> None:
    assert "valid" in run("-m", "npe2", "validate", "napari-dycon", cwd=tmp_path).lower()


def test_manifest_is_valid_in_a_wheel(tmp_path: Path) -> None:
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    wheel = next(tmp_path.glob("*.whl"))
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        file.extractall(site)
    assert "napari_dycon/napari.yaml" in names
    assert "napari_dycon/resources/presets/default.json" in names
    assert "napari_dycon/exports/report/report.html.jinja" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    found = run("-m", "npe2", "validate", "napari-dycon", cwd=tmp_path, path=site)
    assert "valid" in found.lower()
    code = "import napari_dycon; print(napari_dycon.__file__)"
    assert str(site) in run("-c", code, cwd=tmp_path, path=site)


def test_the_reader_returns_the_scan_in_millimeters(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    assert get_reader("notes.txt") is None
    reader = get_reader(str(path))
    assert reader is not None
    ((array, about, kind),) = reader(str(path))
    assert (about["scale"], about["units"], kind) == (
        read_volume(path).spacing_mm,
        ("mm",) * 3,
        "image",
    )
    assert array.shape == (5, 4, 3)


def test_the_sample_is_a_scan_with_its_label() -> None:
    (image, _, _), (truth, about, kind) = sample_case()
    assert image.shape == truth.shape
    assert kind == "labels"
    assert set(np.unique(truth)) == {0, 1, 2}
    assert about["name"] == "truth (organ, lesion)"
