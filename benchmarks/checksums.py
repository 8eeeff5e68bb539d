"""Record and compare checksums of trained weights, predictions and exports.

``python benchmarks/checksums.py record FILE [--code DIR]`` trains every method for 20 steps on a
few synthetic scans (CPU, float32, one thread), predicts, exports in every format, and writes a
checksum of each result to FILE. ``python benchmarks/checksums.py compare FILE [--code DIR]``
repeats this and lists the differences, to prove that a change alters no result.

Checksums cover voxels, tensors and numbers, not file names or wording. They depend on the processor
and on the version of torch: record and compare on the same machine. ``--code`` runs the program of
another checkout. All runs together take about five minutes on two cores.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from pydicom import dcmread
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
CASES, LABELED, STEPS = 6, 3, 20
EXPORTED = "dycon"  # the run whose predictions and weights are exported
# Method and further settings of each run. Small networks; every loss term is used.
SMALL = {"precision": "float32", "network.filters": [8, 16, 32], "batch.patch_size": [32, 32, 32]}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised": ("supervised", {}),
    "mean-teacher": ("mean-teacher", {"semi_supervised.start": 0.25}),
    "secl-region": ("secl-region", {"semi_supervised.start": 0.25}),
    "secl-anatomical": ("secl-anatomical", {"semi_supervised.start": 0.25}),
    "dycon": (
        "dycon",
        {"semi_supervised.start": 0.25, "atlas.max_registration_pairs": 4, "atlas.templates": 2},
    ),
    "dycon-teacher": (
        "dycon",
        {
            "semi_supervised.start": 0.25,
            "atlas.max_registration_pairs": 0,
            "atlas.weight": 0.0,
            "fecl.teacher_weight": 1.0,
            "fecl.negative_gamma": 1.0,
            "fecl.cross_patch": True,
            "batch.accumulation_steps": 2,
        },
    ),
    "paper": (
        "dycon",
        {"preset": "paper", "network.projection_hidden": 32, "batch.labeled_size": 2},
    ),
}


def checksum(*arrays: np.ndarray | bytes) -> str:
    """Return a checksum of values, types and shapes."""
    total = hashlib.sha256()
    for array in arrays:
        if isinstance(array, bytes):
            total.update(array)
            continue
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def weights_checksum(path: Path) -> str:
    """Return a checksum of the values of tensors; their names are ignored."""
    tensors = load_file(path).values()
    return checksum(*(one.encode() for one in sorted(checksum(tensor) for tensor in tensors)))


def image_checksum(path: Path) -> str:
    """Return a checksum of a mask or map in NIfTI or NRRD: voxels and geometry."""
    if path.name.endswith((".nii", ".nii.gz")):
        image = nib.load(path)
        return checksum(np.asanyarray(image.dataobj), image.affine)
    image = sitk.ReadImage(str(path))
    geometry = np.array([*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()])
    return checksum(sitk.GetArrayFromImage(image), geometry)


def segmentation_checksum(path: Path) -> str:
    """Return a checksum of a DICOM segmentation: pixels, segments and positions of frames."""
    data = dcmread(path)
    segments = [
        (s.SegmentNumber, s.SegmentLabel, s.SegmentedPropertyTypeCodeSequence[0].CodeValue)
        for s in data.SegmentSequence
    ]
    positions = [
        [float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient]
        for frame in data.PerFrameFunctionalGroupsSequence
    ]
    return checksum(data.PixelData, repr((segments, positions)).encode())


def report_checksum(folder: Path) -> str:
    """Return a checksum of a report: numbers of its tables and pixels of its figures."""
    parts: list[bytes] = []
    for path in sorted(folder.rglob("*.csv")):
        lines = path.read_text(encoding="utf-8-sig").splitlines()[1:]  # without the header
        parts.append(" ".join(re.findall(r"\d+\.\d+|\d+", "\n".join(lines))).encode())
    for path in sorted(folder.rglob("*.html")):
        found = re.findall(r"base64,([A-Za-z0-9+/=]+)", path.read_text(encoding="utf-8"))
        parts.extend(base64.b64decode(one) for one in found)
    return checksum(*parts)


CHECKS: dict[str, Callable[[Path], str]] = {
    "weights.safetensors": weights_checksum,
    ".nii.gz": image_checksum,
    ".nrrd": image_checksum,
    ".dcm": segmentation_checksum,
}


def folder_checksums(folder: Path) -> dict[str, str]:
    """Return the checksums of images and weights in a folder, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        for ending, check in CHECKS.items():
            if path.name.endswith(ending):
                found[path.relative_to(folder).as_posix()] = check(path)
    return found


class Program:
    """The command line program of a checkout."""

    def __init__(self, code: Path, state: Path) -> None:
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
        self.env = (
            os.environ | threads | {"PYTHONPATH": str(code), "NAPARI_DYCON_STATE": str(state)}
        )
        self.cwd = state

    def call(self, *arguments: object) -> dict[str, Any]:
        """Run a command and return its last line of JSON."""
        command = [sys.executable, "-m", "napari_dycon", *map(str, arguments), "--json"]
        process = subprocess.run(
            command, env=self.env, cwd=self.cwd, capture_output=True, text=True
        )
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{process.stderr}")
        text = process.stdout.strip()
        values: dict[str, Any] = json.loads(
            text if text.startswith("{\n") else text.splitlines()[-1]
        )
        return values

    def python(self, code: str, *arguments: object) -> None:
        """Run Python code that imports the package."""
        subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=self.env,
            cwd=self.cwd,
            check=True,
        )


def write_scans(program: Program, folder: Path) -> None:
    """Write synthetic scans, and labels of some of them."""
    program.python(
        "import sys\n"
        "from pathlib import Path\n"
        "try:\n"
        "    from napari_dycon.demo.synthetic import write_cohort\n"
        "except ImportError:\n"
        "    from napari_dycon.demo.cohort import write_cohort\n"
        "write_cohort(Path(sys.argv[1]), cases=int(sys.argv[2]))",
        folder,
        CASES,
    )
    (folder / "labels").mkdir()
    for path in sorted((folder / "truth").iterdir())[:LABELED]:
        shutil.copyfile(path, folder / "labels" / path.name)


def write_dicom(folder: Path) -> None:
    """Write two DICOM series and their labels."""
    for number in (1, 2):
        rng = np.random.default_rng(number)
        voxels = rng.integers(0, 900, (12, 24, 20)).astype(np.int16)
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing((0.9, 1.1, 2.5))
        image.SetOrigin((-20.0, 10.5, 40.0))
        series = folder / "images" / f"series-{number}"
        series.mkdir(parents=True)
        for index in range(image.GetDepth()):
            plane = image[:, :, index : index + 1]
            for tag, value in {
                "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
                "0008|0018": f"1.2.3.{number}.{index + 1}",
                "0008|0060": "MR",
                "0010|0020": f"patient-{number}",
                "0020|000d": f"1.2.3.{number}.100",
                "0020|000e": f"1.2.3.{number}.200",
                "0020|0052": f"1.2.3.{number}.300",
                "0020|0013": str(index + 1),
                "0020|0032": "\\".join(
                    map(str, image.TransformIndexToPhysicalPoint((0, 0, index)))
                ),
                "0020|0037": "1\\0\\0\\0\\1\\0",
                "0018|0050": "2.5",
            }.items():
                plane.SetMetaData(tag, value)
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(series / f"{index:03}.dcm"))
            writer.Execute(plane)
        label = sitk.GetImageFromArray((voxels > 600).astype(np.uint8))
        label.CopyInformation(image)
        (folder / "labels").mkdir(exist_ok=True)
        sitk.WriteImage(label, str(folder / "labels" / f"series-{number}.nii.gz"))


def run_one(program: Program, scans: Path, folder: Path, name: str) -> dict[str, str]:
    """Train one run in a new project and predict with it."""
    method, settings = RUNS[name]
    project = folder / "projects" / name
    program.call(
        "new", project, "--images", scans / "images", "--labels", scans / "labels",
        "--classes", "organ,lesion",
    )  # fmt: skip
    settings = SMALL | settings
    preset = settings.pop("preset", "default")
    options = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    program.call(
        "train", project, "--method", method, "--preset", preset, "--steps", STEPS,
        "--device", "cpu", *options,
    )  # fmt: skip
    # All scans for exports, otherwise one that was trained on and one that was not.
    chosen = [] if name == EXPORTED else ["--cases", "case-02,case-05"]
    program.call("predict", project, *chosen)
    (run,) = (project / "runs").iterdir()
    found = {f"run {name}: weights": weights_checksum(run / "weights.safetensors")}
    predictions = folder_checksums(project / "predictions" / run.name)
    return found | {f"run {name}: {path}": value for path, value in predictions.items()}


def export_all(program: Program, folder: Path) -> dict[str, str]:
    """Export a trained project and one of DICOM series in every format."""
    project = folder / "projects" / EXPORTED
    found: dict[str, str] = {}
    for format_ in ("nifti", "nrrd", "nnunet", "monai-bundle", "report"):
        out = folder / "exports" / format_
        program.call("export", project, "--format", format_, "--out", out)
        results = folder_checksums(out)
        if format_ == "report":
            results = {"figures and pictures": report_checksum(out)}
        elif format_ == "monai-bundle":  # run names hold a date
            results = {"weights": checksum(*(v.encode() for v in results.values()))}
        found |= {f"export {format_}: {path}": value for path, value in results.items()}
    write_dicom(folder / "dicom")
    project = folder / "projects" / "dicom"
    program.call(
        "new", project, "--images", folder / "dicom" / "images",
        "--labels", folder / "dicom" / "labels", "--classes", "liver",
    )  # fmt: skip
    out = folder / "exports" / "dicom-seg"
    program.call("export", project, "--format", "dicom-seg", "--out", out)
    results = folder_checksums(out)
    return found | {f"export dicom-seg: {path}": value for path, value in results.items()}


def compute_all(code: Path) -> dict[str, str]:
    """Compute all checksums with the program of a checkout."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = Program(code, folder)
        scans = folder / "scans"
        write_scans(program, scans)
        found = {f"scan {k}": v for k, v in folder_checksums(scans).items()}
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for result in pool.map(lambda run: run_one(program, scans, folder, run), RUNS):
                found |= result
        return found | export_all(program, folder)


def main() -> None:
    """Record or compare checksums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--code", type=Path, default=ROOT)
    options = parser.parse_args()
    found = compute_all(options.code.resolve())
    if options.action == "record":
        options.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{len(found)} checksums in {options.file}")
        return
    expected = json.loads(options.file.read_text(encoding="utf-8"))
    names = sorted(expected.keys() | found.keys())
    different = [one for one in names if expected.get(one) != found.get(one)]
    for one in different:
        print(f"different: {one}: {expected.get(one)} is now {found.get(one)}")
    print(f"{len(names) - len(different)} of {len(names)} checksums are equal")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
