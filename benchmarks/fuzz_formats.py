"""Damaged scans by the hundred: a clear error or an answer, no crash, no hang, no flood of memory.

``python benchmarks/fuzz_formats.py [--count 500] [--seed 0] [--formats .nii .nrrd dicom]``

Small whole files of each format are damaged at random: bits flipped in the header or anywhere, ends
cut off, numbers in text headers replaced by absurd ones, sizes in binary headers overwritten.
Each is read in a process of its own kind that is started again when it dies. What counts: errors
other than ``UserError``, deaths, more than ``--seconds`` for one file, more than 2 GB of memory.
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
MOST_BYTES = 2 * 2**30
ABSURD = (
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
    """Print one row a format; exit with 1 when anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    arguments = parser.parse_args()
    print("| format | files | read | refused | errors | deaths | too slow | most MB | slowest s |")
    print("|---|---|---|---|---|---|---|---|---|")
    bad = 0
    for kind in arguments.formats:
        bad += fuzz(kind, arguments.count, arguments.seed, arguments.seconds)
    raise SystemExit(1 if bad else 0)


def fuzz(kind: str, count: int, seed: int, seconds: float) -> int:
    """Damage and read files of one format; returns how many went wrong."""
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    totals = dict.fromkeys(("read", "refused", "error", "death", "slow"), 0)
    most, slowest = 0, 0.0
    reader = Reader()
    try:
        whole = folder / "whole"
        target, others = make(whole, kind)
        for number in range(count):
            place = folder / "damaged"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(whole, place)
            damaged = place / (rng.choice(others) if others and rng.random() < 0.5 else target)
            damaged.write_bytes(damage(damaged.read_bytes(), damaged.name, rng))
            path = place if kind == "dicom" else place / target
            outcome, text, peak, took = reader.read(path, seconds)
            totals[outcome] += 1
            most, slowest = max(most, peak), max(slowest, took)
            if outcome not in ("read", "refused") or peak > MOST_BYTES:
                kept = Path(tempfile.gettempdir()) / f"fuzz-{kind.strip('.')}-{seed}-{number}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(place, kept)
                print(f"{outcome} at {kept}: {text}", flush=True)
    finally:
        reader.close()
        shutil.rmtree(folder, ignore_errors=True)
    figures = (totals[name] for name in ("read", "refused", "error", "death", "slow"))
    cells = (kind, count, *figures, round(most / 2**20), round(slowest, 2))
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return totals["error"] + totals["death"] + totals["slow"] + (most > MOST_BYTES)


class Reader:
    """A process that reads scans; started anew when it dies or hangs."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def read(self, path: Path, seconds: float) -> tuple[str, str, int, float]:
        """Outcome, what was said, the most memory so far in bytes, and how long it took."""
        if self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            self._pipe.recv()  # everything is imported
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


def serve(pipe: Connection) -> None:
    """Read what is asked for, and tell how it went."""
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


def make(folder: Path, kind: str) -> tuple[str, list[str]]:
    """Whole files of a format: the one to read, and others that belong to it."""
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 900, (12, 11, 10)).astype(np.int16)
    if kind == "dicom":
        import sys

        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        from helpers.dicom_files import compress, save_series
        from pydicom.uid import JPEGLosslessSV1

        paths = save_series(folder, array)
        for path in paths[::3]:
            compress(path)
        for path in paths[1::3]:  # of those that another library decodes
            compress(path, JPEGLosslessSV1)
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
    """One to four damages; those of packed NIfTI lie inside the packing half of the time."""
    packed = name.endswith(".nii.gz") and rng.random() < 0.7
    raw = bytearray(gzip.decompress(data) if packed else data)
    for _ in range(rng.randint(1, 4)):
        way = rng.randrange(6)
        head = min(len(raw), 700)
        if way == 0 and raw:  # bits of the header
            raw[rng.randrange(head)] ^= 1 << rng.randrange(8)
        elif way == 1 and raw:  # bits anywhere
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        elif way == 2 and raw:  # cut off
            del raw[rng.randrange(len(raw)) :]
        elif way == 3 and head > 4:  # two bytes of the header, as sizes are kept
            at = rng.randrange(head - 2)
            raw[at : at + 2] = rng.choice((b"\xff\x7f", b"\xff\xff", b"\x00\x00", b"\x01\x80"))
        elif way == 4:  # numbers of text headers
            found = list(re.finditer(rb"\d+", bytes(raw[:head])))
            if found:
                hit = rng.choice(found)
                raw[hit.start() : hit.end()] = rng.choice(ABSURD)
        else:  # something thrown in
            at = rng.randrange(len(raw) + 1)
            raw[at:at] = rng.randbytes(rng.randint(1, 40))
    return gzip.compress(bytes(raw), 1) if packed else bytes(raw)


if __name__ == "__main__":
    main()
