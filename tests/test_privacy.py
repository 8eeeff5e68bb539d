"""Exports of DICOM scans contain no patient names, and no other machine is contacted."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import IDENTITY, save_series
from pydicom import dcmread

from napari_dycon import io

# Values that can occur by chance (a sex, a size, a time of day) are not searched for.
SECRETS = [
    value
    for name, value in IDENTITY.items()
    if not (value.replace(".", "").isdigit() and len(value) < 8) and len(value) > 4
] + ["Private-4711", "1964-08-12", "2021-03-04"]
ROOT = Path(io.__file__).parents[2]

# Python loads this before anything else, in every process that is started with it on its path.
AUDIT = """
import os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        address = args[1] if event in ("socket.connect", "socket.sendto") else args[0]
        if isinstance(address, (tuple, str, bytes)) and not (
            event == "socket.connect" and not isinstance(address, tuple)
        ):
            with open(os.environ["CALLED"], "a") as file:
                file.write(f"{event} {address}\\n")
sys.addaudithook(watch)
"""

WORK = """
import sys, warnings
warnings.simplefilter("ignore")
from napari_dycon.cli import app as cli
place = sys.argv[1]
def run(*words):
    print("$", *words, flush=True)
    sys.argv = ["napari-dycon", *words]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, words
run("new", f"{place}/p", "--images", f"{place}/dicom", "--labels", f"{place}/labels", "--json")
run("cases", f"{place}/p")
run("train", f"{place}/p", "--steps", "2", "--device", "cpu", "--json",
    "--set", "batch.patch_size=[16,16,16]", "--set", "network.filters=[4,8,8]", "--set",
    "semi_supervised.start=0",
    "--set", "batch.labeled_size=1", "--set", "batch.unlabeled_size=1", "--set",
    "atlas.max_registration_pairs=0")
run("predict", f"{place}/p", "--json")
run("evaluate", f"{place}/p/predictions/001-dycon", f"{place}/labels")
for kind in ("nifti", "nrrd", "dicom-seg", "nnunet", "monai-bundle", "report"):
    run("export", f"{place}/p", "--format", kind, "--out", f"{place}/out/{kind}",
        *(["--uncertainty"] if kind in ("nifti", "dicom-seg") else []))
run("export", f"{place}/p", "--format", "dicom-seg", "--out", f"{place}/named", "--keep-identity")
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with all files that commands make from DICOM scans; ``output``: what they print."""
    place = tmp_path_factory.mktemp("work")
    for number in range(3):
        voxels = np.random.default_rng(number).integers(0, 900, (20, 22, 24)).astype(np.int16)
        voxels[6:14, 6:14, 6:14] += 900
        folder = place / "dicom" / f"patient-{number}"
        save_series(folder, voxels, description=IDENTITY["SeriesDescription"])
        if number < 2:
            scan = io.read_volume(folder)
            label = (scan.array > 900).astype(np.uint8)
            (place / "labels").mkdir(exist_ok=True)
            io.write_mask(label, reference=scan, path=place / "labels" / f"patient-{number}.nii.gz")
    site = place / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(AUDIT)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "CALLED": str(place / "called"),
        "NAPARI_DYCON_STATE": str(place / "state"),
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(place)],
        env=environment, capture_output=True, check=False, cwd=place,
    )  # fmt: skip
    (place / "output").write_bytes(done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()[-3000:]
    return place


def read_contents(path: Path) -> list[bytes]:
    """What is in a file, packed and unpacked, and a DICOM file in words."""
    data = path.read_bytes()
    found = [data]
    if data[:2] == b"\x1f\x8b":
        found.append(gzip.decompress(data))
    if data[128:132] == b"DICM":
        found.append(str(dcmread(path)).encode())
    return found


def find_names(folder: Path) -> set[str]:
    """Which secrets occur in files below a folder, or in their names."""
    found = set()
    for path in sorted(folder.rglob("*")):
        texts = [str(path.relative_to(folder)).encode()]
        texts += read_contents(path) if path.is_file() else []
        for secret in SECRETS:
            for written in {secret.encode(code) for code in ("utf-8", "latin-1", "utf-16-le")}:
                if any(written in text for text in texts):
                    found.add(secret)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("place", ["p", "out", "state"])
def test_no_patient_name_is_in_the_output(place: str, work: Path) -> None:
    assert any((work / place).iterdir())
    assert find_names(work / place) == set()


@pytest.mark.slow
def test_no_name_is_in_the_output(work: Path) -> None:
    output = (work / "output").read_bytes()
    assert b'"event": "finished"' in output
    for secret in SECRETS:
        assert secret.encode() not in output


@pytest.mark.slow
def test_the_search_finds_requested_names(work: Path) -> None:
    assert {IDENTITY["PatientName"], IDENTITY["PatientID"]} <= find_names(work / "named")
    assert len(find_names(work / "dicom")) > len(SECRETS) - 4


@pytest.mark.slow
def test_every_kind_of_file_was_searched(work: Path) -> None:
    names = " ".join(path.name for path in work.rglob("*") if path.is_file())
    for ending in ("weights.safetensors", "state.safetensors", "events.jsonl", "metrics.json",
                   ".npy", "project.json", "_uncertainty.nii.gz", ".nrrd", ".dcm", "dataset.json",
                   "model.safetensors", "report.html", "cases.csv"):  # fmt: skip
        assert ending in names


@pytest.mark.slow
def test_no_other_machine_was_contacted(work: Path) -> None:
    called = work / "called"
    assert not called.exists(), called.read_text()


def test_the_audit_hook_detects_a_connection(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    code = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CALLED": str(tmp_path / "called")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert "socket.connect" in (tmp_path / "called").read_text()


def test_a_weights_header_contains_no_scan_names(work: Path) -> None:
    data = (work / "p" / "runs" / "001-dycon" / "weights.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header["__metadata__"]["about"])
    assert set(about) == {
        "config",
        "class_values",
        "channels",
        "temperature",
        "window_side",
        "step",
    }
    assert "patient-0" not in json.dumps(header)
