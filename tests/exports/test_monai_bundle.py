"""A bundle runs without this package and gives the same masks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.nifti_files import save_nifti
from helpers.tiny_runs import TINY
from safetensors import safe_open

from napari_dycon.engine import network
from napari_dycon.engine.checkpoints.model_file import TrainedModel, load_model, save_weights
from napari_dycon.engine.config import make_config
from napari_dycon.engine.inference import uncertainty
from napari_dycon.engine.inference.predict import predict_volume
from napari_dycon.errors import ConfigError, ProjectError
from napari_dycon.exports.bundle.scripts.images import find_scans
from napari_dycon.exports.monai_bundle import export_monai_bundle
from napari_dycon.io import read_label, read_map, read_volume
from napari_dycon.project.models import ClassInfo

ROOT = Path(__file__).parents[2]
CLASSES = [
    ClassInfo(value=2, name="liver", color="#ffffff"),
    ClassInfo(value=7, name="$import os", color="#ff0000"),
]


def make_weights(path: Path, channels: int = 1, window_side: float = 1.0, **settings: Any) -> Path:
    """Write weights of two untrained networks whose output depends on the voxels."""
    planned = {
        "preprocessing.spacing": [1.5, 1.2, 1.0],
        "preprocessing.normalization": "zscore",
        "network.half_resolution": False,
    }
    config = make_config("dycon", **(TINY | planned | settings))
    torch.manual_seed(0)
    networks = [network.build_network(config, channels, 3) for _ in range(2)]
    for one in networks:
        head = one.fine.layers[-1] if one.fine else one.backbone.output_block.conv.conv
        with torch.no_grad():
            head.weight *= 5
            head.bias.zero_()
    model = TrainedModel(
        networks[0], networks[1], config, (2, 7), channels, 1.3, window_side=window_side
    )
    save_weights(path, model, step=1)
    return path


def make_odd_affine() -> np.ndarray:
    """Axes Anterior, Inferior, Left, of 0.8, 2.2 and 1.1 mm, 20° oblique."""
    turn = np.deg2rad(20)
    oblique = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = oblique @ np.array([[0, 0, -1.1], [0.8, 0, 0], [0, -2.2, 0]])
    affine[:3, 3] = [12.5, -40.0, 7.25]
    return affine


def export_bundle(weights: Path, out: Path, channels: list[str]) -> Path:
    return export_monai_bundle(weights, out, name="abdomen", classes=CLASSES, channels=channels)


def run_without_package(folder: Path, *arguments: object) -> None:
    """Run Python where ``napari_dycon`` and ``napari`` end the process that imports them."""
    blocked = folder / "blocked"
    blocked.mkdir(exist_ok=True)
    for name in ("napari_dycon", "napari"):
        (blocked / f"{name}.py").write_text("raise SystemExit('this must not be imported')")
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def make_command(options: dict[str, Path]) -> list[str]:
    """``python -m monai.bundle run``, or the function behind it without its package fire."""
    if importlib.util.find_spec("fire"):
        return ["-m", "monai.bundle", "run", *(f"--{k}={v}" for k, v in options.items())]
    named = {key: str(value) for key, value in options.items()}
    return ["-c", f"from monai.bundle import run; run(**{named!r})"]


CHECK_AND_RUN = """
from monai.bundle import ConfigWorkflow, run, verify_net_in_out
files = {"config_file": "configs/inference.json", "meta_file": "configs/metadata.json"}
verify_net_in_out(net_id="network_def", device="cpu", **files)
workflow = ConfigWorkflow(**files, workflow_type="infer", dataset_dir="../scans")
workflow.initialize()
assert workflow.check_properties() == [], workflow.check_properties()
assert workflow.version == "1.0.0"
assert workflow.channel_def["1"] == "liver"
run(**files, bundle_root=".", dataset_dir="../scans", output_dir="../out")
"""


def check_agreement(weights: Path, images: list[Path], results: Path, name: str) -> None:
    """The bundle's mask and map of a scan are those of this package, on the scan's grid."""
    volumes = [read_volume(path) for path in images]
    volume = volumes[0]
    if len(volumes) > 1:
        volume = replace(volume, array=np.stack([v.array for v in volumes]))
    own = predict_volume(load_model(weights), volume, torch.device("cpu"))
    found = read_label(results / f"{name}.nii.gz", reference=volume).array
    values = np.unique(own.mask)
    assert len(values) > 1
    for value in values:
        a, b = own.mask == value, found == value
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.999
    unsure = read_map(results / f"{name}_uncertainty.nii.gz")
    np.testing.assert_allclose(unsure, own.uncertainty, atol=1e-3)
    source = nib.load(images[0])
    for path in (results / f"{name}.nii.gz", results / f"{name}_uncertainty.nii.gz"):
        result = nib.load(path)
        assert result.shape == source.shape
        np.testing.assert_allclose(result.affine, source.affine, atol=1e-5)
        assert result.header.get_xyzt_units()[0] == "mm"
        assert b"DOE" not in bytes(result.header.binaryblock)
    assert nib.load(results / f"{name}.nii.gz").get_data_dtype() == np.uint8


def test_two_channels_on_an_odd_grid_agree_with_the_program(tmp_path: Path) -> None:
    weights = make_weights(
        tmp_path / "w.safetensors",
        2,
        1.25,
        **{"network.half_resolution": True, "inference.tta_flip_left_right": True},
    )
    bundle = export_bundle(weights, tmp_path / "bundle", ["T1", "T2"])
    rng = np.random.default_rng(0)
    images = []
    for channel in range(2):
        array = rng.normal(100, 20, (34, 12, 25)).astype(np.int16)
        path = tmp_path / "scans" / f"a.b_000{channel}.nii.gz"
        image = nib.load(save_nifti(path, array, make_odd_affine()))
        image.header["descrip"] = b"DOE^JANE"
        nib.save(image, path)
        images.append(path)
    options = {"bundle_root": bundle, "dataset_dir": tmp_path / "scans"}
    options |= {"output_dir": tmp_path / "out", "config_file": bundle / "configs/inference.json"}
    run_without_package(tmp_path, *make_command(options))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "a.b.nii.gz",
        "a.b_uncertainty.nii.gz",
    }
    check_agreement(weights, images, tmp_path / "out", "a.b")


def test_a_ct_window_and_a_contradictory_affine_pass_the_checks_of_monai(
    tmp_path: Path,
) -> None:
    weights = make_weights(
        tmp_path / "w.safetensors",
        **{
            "preprocessing.normalization": "clip",
            "preprocessing.intensity_window": [-100.0, 200.0],
            "network.norm": "instance",
        },
    )
    bundle = export_bundle(weights, tmp_path / "bundle", ["CT"])
    array = np.random.default_rng(1).normal(50, 150, (20, 22, 24)).astype(np.float32)
    path = save_nifti(tmp_path / "scans" / "b.nii", array)
    image = nib.load(path)
    image.header.set_sform(np.diag([-1.3, 0.9, 1.7, 1.0]), 4)
    image.header.set_qform(np.diag([1.0, 1.2, 1.5, 1.0]), 1)
    nib.save(nib.Nifti1Image(array, None, image.header), path)
    assert nib.load(path).header.get_zooms() == pytest.approx((1.0, 1.2, 1.5))
    run_without_package(bundle, "-c", CHECK_AND_RUN)
    check_agreement(weights, [path], tmp_path / "out", "b")


def test_the_folder_contains_only_the_required_metadata(tmp_path: Path) -> None:
    weights = make_weights(tmp_path / "w.safetensors", init_from="001-dycon")
    bundle = export_bundle(weights, tmp_path / "new" / "bundle", ["CT"])
    texts = {
        path.relative_to(bundle).as_posix(): path.read_text(encoding="utf-8")
        for path in bundle.rglob("*")
        if path.is_file() and path.suffix != ".safetensors"
    }
    assert set(texts) == {
        "LICENSE", "configs/inference.json", "configs/logging.conf", "configs/metadata.json",
        "docs/README.md", "scripts/__init__.py", "scripts/ensemble.py", "scripts/inferer.py",
        "scripts/network.py", "scripts/predictor.py", "scripts/images.py", "scripts/spacing.py",
        "scripts/uncertainty.py", "scripts/windows.py",
    }  # fmt: skip
    assert [n for n, text in texts.items() if str(tmp_path) in text or "001-dycon" in text] == []
    for module in (network, uncertainty):
        source = Path(str(module.__file__))
        assert texts[f"scripts/{source.name}"] == source.read_text(encoding="utf-8")
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    with safe_open(bundle / "models" / "model.safetensors", framework="pt") as file:
        assert not file.metadata()
        assert {key.split(".")[0] for key in file.keys()} == {"student", "teacher"}  # noqa: SIM118

    about = json.loads(texts["configs/metadata.json"])
    pred = about["network_data_format"]["outputs"]["pred"]
    # Strings that begin with a dollar are code to MONAI.
    assert pred["channel_def"] == {"0": "background", "1": "liver", "2": "import os"}
    assert about["label_values"] == {"0": "background", "2": "liver", "7": "import os"}
    assert about["network_data_format"]["inputs"]["image"]["channel_def"] == {"0": "CT"}
    assert {"monai_version", "pytorch_version", "numpy_version", "schema"} <= set(about)
    assert "| 7 | import os |" in texts["docs/README.md"]
    assert "$" not in texts["docs/README.md"].replace("$torch.device", "")


def test_failed_exports_leave_no_files(tmp_path: Path) -> None:
    weights = make_weights(tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"on 1 channel, but 2 are named: T1, T2"):
        export_bundle(weights, tmp_path / "out", ["T1", "T2"])
    with pytest.raises(ConfigError, match="no weights"):
        export_bundle(tmp_path / "none.safetensors", tmp_path / "out", ["CT"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ProjectError, match="is not empty"):
        export_bundle(weights, tmp_path / "full", ["CT"])
    assert {p.name for p in tmp_path.iterdir()} == {"w.safetensors", "full"}
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert export_bundle(weights, tmp_path / "empty", ["CT"]) == tmp_path / "empty"


def find_channels(folder: Path, names: list[str], channels: int) -> dict[str, list[str]]:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    scans = find_scans(str(folder), channels, str(folder.parent))
    return {scan["name"]: [Path(path).name for path in scan["image"]] for scan in scans}


def test_channels_are_matched_by_file_name(tmp_path: Path) -> None:
    one = ["a_2024.nii.gz", "b_0000.nii", ".hidden.nii", "notes.txt"]
    assert find_channels(tmp_path / "1", one, 1) == {"a_2024": one[:1], "b_0000": one[1:2]}
    nnunet = ["a_0000.nii.gz", "b_0000.nii.gz"]
    assert find_channels(tmp_path / "2", nnunet, 1) == {"a": nnunet[:1], "b": nnunet[1:]}
    two = ["a_0001.nii.gz", "a_0000.nii.gz"]
    assert find_channels(tmp_path / "3", two, 2) == {"a": two[::-1]}
    wrong: list[tuple[str, list[str], int]] = [
        ("contains no scans", [], 1),
        ("has no channel suffix", ["a.nii.gz"], 2),
        (r"a has the channels \[0\]; expected \[0, 1\]", ["a_0000.nii.gz"], 2),
        ("channel 0 of a twice", ["a.nii", "a.nii.gz"], 1),
    ]
    for number, (words, names, channels) in enumerate(wrong):
        with pytest.raises(ValueError, match=words):
            find_channels(tmp_path / f"wrong{number}", names, channels)
    with pytest.raises(ValueError, match="share a folder"):
        find_scans(str(tmp_path / "1"), 1, str(tmp_path / "1"))
