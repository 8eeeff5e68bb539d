"""Fuzz parsers of untrusted files, guided by coverage: every input must give a result or a clear
error.

``python benchmarks/fuzz_coverage.py TARGET --minutes 30``

TARGET is one of ``project`` (project.json), ``weights`` (headers of safetensors), ``nifti``,
``nrrd`` (headers of scans), ``events`` (lines of a run). Atheris, an extra of this package (``pip
install "napari-dycon[fuzz]"``), mutates inputs and keeps those that reach new code. A finding is
any exception other than ``DyconError``, the death of the process, or more than 10 s or 2 GB for one
input. The search ends at the first finding with a nonzero exit status; its input is stored in the
folder ``--keep``, as ``last`` if the process died. Inputs of fixed findings are kept in
``tests/io/corpus``, where a test reads them.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import importlib
import json
import os
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "io" / "corpus"
LAST = "last"  # file of the current input
MAX_INPUT_BYTES = 4096
MAX_SECONDS, MAX_MEGABYTES = 10, 2048  # for one input
MODULES = (
    "napari_dycon.engine.checkpoints",
    "napari_dycon.project.runs.events",
    "napari_dycon.io",
    "napari_dycon.project.store",
    "napari_dycon.application.training.status",
)
Target = Callable[[bytes], object]


def make_targets(folder: Path) -> dict[str, Target]:
    """Return the tested functions by name; each takes the bytes of a file."""
    from napari_dycon.application.training.status import RunStatus, apply_event
    from napari_dycon.engine.checkpoints.safetensors_io import open_untrusted_safetensors
    from napari_dycon.errors import DyconError
    from napari_dycon.io import read_volume
    from napari_dycon.project.models import Status
    from napari_dycon.project.runs.events import parse_event
    from napari_dycon.project.runs.run import Run
    from napari_dycon.project.store import Project

    def project(data: bytes) -> None:
        path = folder / "project"
        path.mkdir(exist_ok=True)
        (path / "project.json").write_bytes(data)
        opened = Project.open(path)
        opened.external_folders()
        for case in opened.cases[:2]:
            opened.image_paths(case.id)
            with contextlib.suppress(DyconError):
                opened.read_image(case.id)
            opened.set_status(case.id, Status.UNLABELED)

    def weights(data: bytes) -> None:
        path = folder / "weights.safetensors"
        path.write_bytes(data)
        with open_untrusted_safetensors(path) as file:
            metadata = file.metadata
        from napari_dycon.engine.checkpoints.model_file import load_model

        if metadata:
            load_model(path)

    def scan(name: str) -> Target:
        def read(data: bytes) -> None:
            path = folder / name
            path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
            read_volume(path)

        return read

    def events(data: bytes) -> None:
        status = RunStatus("starting", "001")
        for line in data.splitlines():
            event = parse_event(line)
            if event is not None:
                status = apply_event(status, event)
        run = Run(folder)
        for path in (run.events_path, run.metrics_path, run.control_path, run.config_path):
            path.write_bytes(data)
        run.read_events()
        run.read_metrics()
        for read in (run.read_control, run.read_config):
            with contextlib.suppress(DyconError):
                read()

    return {
        "project": project,
        "weights": weights,
        "nifti": scan("scan.nii"),
        "nrrd": scan("scan.nrrd"),
        "events": events,
    }


def make_seeds(target: str, folder: Path) -> Iterator[bytes]:
    """Yield valid inputs to start from."""
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    if target == "project":
        case = {"id": "a-1", "images": ["../a.nii.gz", "b.nii#1"], "status": "labeled"}
        yield json.dumps(
            {
                "schema_version": 1,
                "name": "p",
                "classes": [{"value": 1, "name": "box", "color": "#56b4e9"}],
                "channels": ["t1", "t2"],
                "cases": [case, {**case, "id": "b", "split": "validation", "resampled": True}],
            }
        ).encode()
    elif target == "weights":
        description = json.dumps(
            {
                "config": {
                    "network.filters": [4, 8, 8],
                    "batch.patch_size": [16, 16, 16],
                    "preprocessing.spacing": [1, 1, 1],
                },
                "class_values": [1],
                "channels": 1,
                "temperature": 1.0,
            }
        )
        header = {
            "__metadata__": {"format": "napari-dycon", "version": "1", "about": description},
            "student.a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "student.b": {"dtype": "I64", "shape": [], "data_offsets": [8, 16]},
        }
        text = json.dumps(header).encode()
        yield struct.pack("<Q", len(text)) + text + bytes(16)
        yield b"\x80\x04\x95"
    elif target == "nifti":
        import nibabel as nib

        for kind in (nib.Nifti1Image, nib.Nifti2Image):
            nib.save(kind(array, np.diag([0.9, 1.1, 2.0, 1.0])), folder / "seed.nii")
            yield (folder / "seed.nii").read_bytes()
    elif target == "nrrd":
        import SimpleITK as sitk  # noqa: N813

        for packed in (False, True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / "seed.nrrd"), packed)
            yield (folder / "seed.nrrd").read_bytes()
    else:
        yield b"\n".join(
            json.dumps(event).encode()
            for event in (
                {"event": "started", "run": "1", "method": "dycon", "device_reason": "cpu"},
                {"event": "preparing", "done": 1, "total": 2},
                {
                    "event": "step",
                    "step": 1,
                    "progress": 0.5,
                    "loss": None,
                    "loss_terms": {"a": 1.0},
                },
                {"event": "validation", "step": 1, "dice": {"1": 0.5}, "mean": 0.5},
                {"event": "finished", "step": 2, "elapsed_s": 1.5, "dice": None},
            )
        )
    corpus = CORPUS / target
    for path in sorted(corpus.iterdir()) if corpus.is_dir() else ():
        yield path.read_bytes()


WORDS = {
    "project": ["schema_version", "name", "classes", "channels", "cases", "images", "id", "split",
                "status", "resampled", "value", "color", "true", "null", "1e999", "\\\\ud800"],
    "weights": ["__metadata__", "format", "napari-dycon", "version", "about", "data_offsets",
                "dtype", "shape", "F32", "I64", "config", "filters", "class_values"],
    "nifti": ["n+1", "ni1", "\\x5c\\x01\\x00\\x00", "\\xff\\xff\\xff\\x7f", "\\x00\\x00\\xc0\\x7f"],
    "nrrd": ["NRRD0004", "type: ", "dimension: ", "sizes: ", "encoding: ", "gzip", "raw", "hex",
             "ascii", "space directions: ", "space origin: ", "kinds: ", "endian: ", "byte skip: ",
             "line skip: ", "data file: ", "spacings: ", "none", "nan", "-1"],
    "events": ["event", "step", "progress", "loss_terms", "dice", "mean", "message", "elapsed_s",
               "loss"],
}  # fmt: skip


def main() -> None:
    """Search until the time is over (exit status 0) or until the first finding (nonzero)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(WORDS))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    arguments = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["napari_dycon", "nibabel"]):
        for module in MODULES:  # so that their branches are counted
            importlib.import_module(module)
    from napari_dycon.errors import DyconError

    folder = Path(tempfile.mkdtemp())
    os.environ["NAPARI_DYCON_STATE"] = str(folder / "state")
    target = make_targets(folder)[arguments.target]

    keep = arguments.keep / arguments.target
    keep.mkdir(parents=True, exist_ok=True)

    def test_input(data: bytes) -> None:
        (keep / LAST).write_bytes(data)  # in case the process dies
        try:
            target(data)
        except DyconError:
            pass
        except BaseException:
            traceback.print_exc()
            finding = keep / hashlib.sha256(data).hexdigest()[:12]
            (keep / LAST).replace(finding)
            print(f"found {finding}", file=sys.stderr, flush=True)
            os._exit(1)

    inputs = folder / "inputs"
    inputs.mkdir()
    for number, seed in enumerate(make_seeds(arguments.target, folder)):
        test_input(seed)  # imports modules before times are limited
        (inputs / f"seed-{number}").write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f'"{word}"\n' for word in WORDS[arguments.target]))
    options = {
        "max_total_time": round(60 * arguments.minutes),
        "max_len": MAX_INPUT_BYTES,
        "timeout": MAX_SECONDS,
        "rss_limit_mb": MAX_MEGABYTES,
        "seed": arguments.seed,
        "dict": words,
        "print_final_stats": 1,
    }
    atheris.Setup(
        [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(inputs)],
        test_input,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
