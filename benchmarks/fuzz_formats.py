"""Read hundreds of damaged scans: each must give a result or a clear error, without crash or hang.

``python benchmarks/fuzz_formats.py [--count 500] [--seed 0] [--formats .nii .nrrd dicom]``

Small valid files of each format are damaged at random: flipped bits in the header or anywhere,
truncation, extreme numbers in text headers, overwritten sizes in binary headers. Each is read in a
separate process that is restarted when it dies. Prints one row for each format; the exit status is
1 after errors other than ``UserError``, deaths of the process, more than ``--seconds`` for one
file, or more than 2 GB of memory. Such files are copied to the temporary folder of the system.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import random
import re
import resource
import shutil
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import nibabel as nib
import numpy as np

FORMATS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", "dicom")
MAX_MEMORY_BYTES = 2 * 2**30
EXTREME_NUMBERS = (
    b"0",
    b"-1",
    b"65535",
    b"2147483647",
    b"4294967296",
    b"99999999999999999999",
    b"nan",
    b"1e308",
)


def main() -> None:
    """Print one row for each format; exit with status 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    arguments = parser.parse_args()
    print("| format | files | read | refused | errors | deaths | too slow | peak MB | slowest s |")
    print("|---|---|---|---|---|---|---|---|---|")
    failures = 0
    for kind in arguments.formats:
        failures += fuzz(kind, arguments.count, arguments.seed, arguments.seconds)
    raise SystemExit(1 if failures else 0)


def fuzz(kind: str, count: int, seed: int, seconds: float) -> int:
    """Damage and read files of one format; return the number of failures."""
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    totals = dict.fromkeys(("read", "refused", "error", "death", "slow"), 0)
    peak_bytes, slowest = 0, 0.0
    reader = Reader()
    try:
        original = folder / "original"
        target, others = write_files(original, kind)
        for number in range(count):
            copy = folder / "damaged"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(original, copy)
            damaged = copy / (rng.choice(others) if others and rng.random() < 0.5 else target)
            damaged.write_bytes(damage(damaged.read_bytes(), damaged.name, rng))
            path = copy if kind == "dicom" else copy / target
            outcome, text, peak, seconds_taken = reader.read(path, seconds)
            totals[outcome] += 1
            peak_bytes, slowest = max(peak_bytes, peak), max(slowest, seconds_taken)
            if outcome not in ("read", "refused") or peak > MAX_MEMORY_BYTES:
                kept = Path(tempfile.gettempdir()) / f"fuzz-{kind.strip('.')}-{seed}-{number}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(copy, kept)
                print(f"{outcome} at {kept}: {text}", flush=True)
    finally:
        reader.close()
        shutil.rmtree(folder, ignore_errors=True)
    figures = (totals[name] for name in ("read", "refused", "error", "death", "slow"))
    cells = (kind, count, *figures, round(peak_bytes / 2**20), round(slowest, 2))
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return totals["error"] + totals["death"] + totals["slow"] + (peak_bytes > MAX_MEMORY_BYTES)


class Reader:
    """A process that reads scans, restarted when it dies or hangs."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def read(self, path: Path, seconds: float) -> tuple[str, str, int, float]:
        """Return outcome, message, peak memory in bytes so far, and seconds."""
        if self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._pipe, child_pipe = context.Pipe()
            self._process = context.Process(target=serve_reads, args=(child_pipe,), daemon=True)
            self._process.start()
            child_pipe.close()
            self._pipe.recv()  # all modules are imported
        assert self._pipe is not None
        begin = time.perf_counter()
        self._pipe.send(str(path))
        try:
            if not self._pipe.poll(seconds):
                self.close()
                return "slow", "no answer", 0, seconds
            outcome, text, peak = self._pipe.recv()
        except (EOFError, ConnectionError):
            self.close()
            return "death", "the process died", 0, time.perf_counter() - begin
        return outcome, text, peak, time.perf_counter() - begin

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def serve_reads(pipe: Connection) -> None:
    """Read the requested files and send the outcomes."""
    import pydicom
    import SimpleITK  # noqa: F401

    from napari_dycon.errors import UserError
    from napari_dycon.io import read_volume

    del pydicom
    pipe.send("ready")
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return
        try:
            read_volume(path)
            outcome, text = "read", ""
        except UserError as error:
            outcome, text = "refused", str(error)
        except BaseException as error:
            outcome, text = "error", f"{type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send((outcome, text, peak))


def write_files(folder: Path, kind: str) -> tuple[str, list[str]]:
    """Write valid files of a format; return the one to read, and others that belong to it."""
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 900, (12, 11, 10)).astype(np.int16)
    if kind == "dicom":
        import sys

        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        from helpers.dicom_files import compress_file, save_series
        from pydicom.uid import JPEGLosslessSV1

        paths = save_series(folder, array)
        for path in paths[::3]:
            compress_file(path)
        for path in paths[1::3]:  # decoded by another library
            compress_file(path, JPEGLosslessSV1)
        return paths[0].name, [p.name for p in paths[1:]]
    if kind.startswith(".nii"):
        nib.save(nib.Nifti1Image(array, np.diag([0.9, 1.1, 2.0, 1.0])), folder / f"s{kind}")
        return f"s{kind}", []
    import SimpleITK as sitk  # noqa: N813

    sitk.WriteImage(
        sitk.GetImageFromArray(array), str(folder / f"s{kind}"), kind in (".nrrd", ".mha")
    )
    return f"s{kind}", [p.name for p in folder.iterdir() if p.name != f"s{kind}"]


def damage(data: bytes, name: str, rng: random.Random) -> bytes:
    """Damage bytes in one to four positions; of NIfTI, often inside the compressed stream."""
    compressed = name.endswith(".nii.gz") and rng.random() < 0.7
    raw = bytearray(gzip.decompress(data) if compressed else data)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(6)
        head = min(len(raw), 700)
        if kind == 0 and raw:  # bits of the header
            raw[rng.randrange(head)] ^= 1 << rng.randrange(8)
        elif kind == 1 and raw:  # bits anywhere
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        elif kind == 2 and raw:  # truncation
            del raw[rng.randrange(len(raw)) :]
        elif kind == 3 and head > 4:  # two bytes of the header, such as sizes
            offset = rng.randrange(head - 2)
            raw[offset : offset + 2] = rng.choice(
                (b"\xff\x7f", b"\xff\xff", b"\x00\x00", b"\x01\x80")
            )
        elif kind == 4:  # numbers of text headers
            found = list(re.finditer(rb"\d+", bytes(raw[:head])))
            if found:
                hit = rng.choice(found)
                raw[hit.start() : hit.end()] = rng.choice(EXTREME_NUMBERS)
        else:  # inserted bytes
            offset = rng.randrange(len(raw) + 1)
            raw[offset:offset] = rng.randbytes(rng.randint(1, 40))
    return gzip.compress(bytes(raw), 1) if compressed else bytes(raw)


if __name__ == "__main__":
    main()
