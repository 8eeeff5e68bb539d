"""Measure time and memory of opening a large scan in the real window.

``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/large_scan_loading.py``

Writes a volume of noise (512 x 512 x 600 int16 voxels, 315 MB) in every format to a temporary
folder, and opens each file in its own process and window. Prints for each the seconds until the
first slice is drawn (of the DICOM series without the selection dialog), the longest time that the
event loop was blocked (the longest gap between two ticks of a timer of 5 ms), and the additional
resident memory after opening and at its peak, relative to the bytes of the voxels. Files are in the
page cache. Times include software rendering, as under Xvfb.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

TICK_MS = 5


def main() -> None:
    """Print a table, or measure one file with ``--open``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(600, 512, 512))
    parser.add_argument("--open", type=Path, help="only open this file or folder and print a row")
    arguments = parser.parse_args()
    if arguments.open is not None:
        measure(arguments.open)
        return
    folder = Path(tempfile.mkdtemp())
    try:
        files = write_all(folder, tuple(arguments.shape))
        cores = os.cpu_count() or 1
        print(f"System load before: {os.getloadavg()[0]:.1f} on {cores} cores\n")
        print(
            "| format | first slice, s | longest blocking, ms | memory after | peak |\n"
            "|---|---|---|---|---|"
        )
        for name, path in files.items():
            print(f"| {name} ", end="", flush=True)
            subprocess.run([sys.executable, "-W", "ignore", __file__, "--open", path], check=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_all(folder: Path, shape: tuple[int, int, int]) -> dict[str, Path]:
    """Write noise ``(slices, rows, columns)`` in every format."""
    import SimpleITK as sitk  # noqa: N813

    from napari_dycon.io import write_volume
    from napari_dycon.io.volume import Source, Volume

    rng = np.random.default_rng(0)
    array = np.empty(shape, np.int16)
    for number in range(shape[0]):
        array[number] = rng.normal(40, 60, shape[1:])
    affine = np.diag([-0.7, -0.7, 1.0, 1.0])
    reference = Volume(array, affine, Source(None, (shape[2], shape[1], shape[0]), affine))
    files = {
        ".nii": folder / "a.nii",
        ".nii.gz": folder / "a.nii.gz",
        ".nrrd, compressed": folder / "a.nrrd",
        ".nrrd": folder / "raw.nrrd",
        ".mha": folder / "raw.mha",
        "DICOM series": folder / "series",
    }
    for path in list(files.values())[:3]:
        write_volume(array, reference=reference, path=path)
    image = sitk.ReadImage(str(files[".nrrd, compressed"]))
    sitk.WriteImage(image, str(files[".nrrd"]), False)
    sitk.WriteImage(image, str(files[".mha"]), False)
    write_series(files["DICOM series"], array)
    return files


def write_series(folder: Path, array: np.ndarray) -> None:
    """Write one CT-like file for each slice."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    series = generate_uid()
    for number, plane in enumerate(array):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        path = folder / f"IM{number:05d}"
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.Modality, data.SeriesInstanceUID, data.SeriesDescription = "CT", series, "noise"
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelSpacing, data.ImageOrientationPatient = [0.7, 0.7], [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [0, 0, float(number)]
        data.PixelData = plane.tobytes()
        data.save_as(path, enforce_file_format=True)


def measure(path: Path) -> None:
    """Open a scan in a window and print one row."""
    import napari
    import psutil
    from _event_loop_latency import settle
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    from napari_dycon.widgets.layers.napari_internals import get_qt_viewer

    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1366, 768)
    small = np.random.default_rng(0).integers(0, 9, (9, 64, 64)).astype(np.int16)
    viewer.add_image(small, scale=(1, 0.7, 0.7), units=("mm",) * 3)  # initialize the canvas
    settle(2.0)
    viewer.layers.clear()
    settle(1.0)
    process = psutil.Process()
    before = process.memory_info().rss
    peak, is_watching = before, True

    def track_peak() -> None:
        nonlocal peak
        while is_watching:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.01)

    watcher = threading.Thread(target=track_peak)
    watcher.start()
    ticks = [time.perf_counter()]
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(TICK_MS)
    begun = time.perf_counter()
    (layer,) = viewer.open(path, plugin="napari-dycon")
    get_qt_viewer(viewer).canvas.native.repaint()  # draw now
    QApplication.processEvents()
    drawn = time.perf_counter()
    ticks.append(drawn)
    timer.stop()
    settle(2.0)
    is_watching = False
    watcher.join()
    after = process.memory_info().rss
    times = [tick for tick in ticks if tick >= begun]
    longest = max(np.diff([begun, *times]))
    size = layer.data.nbytes
    print(
        f"| {drawn - begun:.1f} | {1000 * longest:.0f} | {(after - before) / size:.2f} | "
        f"{(peak - before) / size:.2f} |",
        flush=True,
    )
    viewer.close()


if __name__ == "__main__":
    main()
