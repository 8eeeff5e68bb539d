"""Independent checks of DICOM segmentations and parametric maps.

SimpleITK cannot serve as a reference: it reads the frames of all segments as one stack without
spacing, and cannot open a parametric map. The frames are therefore decoded here from what pydicom
parses, and compared with highdicom's own reading.
"""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import SegmentationStorage
from scipy.spatial import cKDTree

from helpers.dicom_files import (
    AXIAL,
    CORONAL,
    LPS,
    OBLIQUE,
    SAGITTAL,
)
from napari_dycon.io.dicom.segmentation import Segment
from napari_dycon.io.volume import Volume

SEGMENTS = [
    Segment(value=2, name="left atrium", color="#d55e00"),
    Segment(value=7, name="empty", color="#0072b2"),
    Segment(value=5, name="Läsion 左\\b", color="#009e73"),
]
VALUES = {1: 2, 2: 5}  # segment number: class value
ORIENTATIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}


def make_two_classes(volume: Volume) -> np.ndarray:
    """Mask without any symmetry: two speckled boxes, some of it not annotated."""
    rng = np.random.default_rng(0)
    mask = np.zeros(volume.shape, np.uint8)
    d, h, w = (n // 2 for n in volume.shape)
    mask[:d, :h, 1:] = 2
    mask[d + 1 :, 1:, :w] = 5
    mask[rng.random(mask.shape) < 0.3] = 0
    mask[-1, -1] = 255
    return mask


def compute_patient_points(index: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Indices (N, 3) to LPS millimeters (N, 3); the affine leads to RAS."""
    return index @ (LPS @ affine)[:3, :3].T + (LPS @ affine)[:3, 3]


def read_frames(path: Path) -> tuple[Dataset, list[tuple[int, np.ndarray, np.ndarray]]]:
    """Frames of a result as segment number, voxels (rows, columns) and their LPS place."""
    result = dcmread(path)
    rows, columns = result.Rows, result.Columns
    count = int(result.NumberOfFrames)
    if result.SOPClassUID == SegmentationStorage:
        bits = np.unpackbits(np.frombuffer(result.PixelData, np.uint8), bitorder="little")
        voxels = bits[: count * rows * columns].reshape(count, rows, columns)
    else:
        voxels = np.frombuffer(result.FloatPixelData, "<f4").reshape(count, rows, columns)
    shared = result.SharedFunctionalGroupsSequence[0]
    along = np.array(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, np.float64
    ).reshape(2, 3)
    down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    r, c = np.mgrid[:rows, :columns]
    found = []
    for frame, groups in zip(voxels, result.PerFrameFunctionalGroupsSequence, strict=True):
        first = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, np.float64)
        place = first + c[..., None] * across * along[0] + r[..., None] * down * along[1]
        holder = groups if "SegmentIdentificationSequence" in groups else shared
        identified = holder.get("SegmentIdentificationSequence")
        found.append((identified[0].ReferencedSegmentNumber if identified else 0, frame, place))
    return result, found


def assert_same_points(found: np.ndarray, expected: np.ndarray) -> None:
    assert len(found) == len(expected) > 0
    distance, partner = cKDTree(expected).query(found)
    assert distance.max() < 1e-3
    assert len(set(partner)) == len(expected)


def assert_in_place(path: Path, mask: np.ndarray, like: Volume, values: dict[int, int]) -> None:
    """Compare the places of all voxels of each segment, read in two ways, with the mask's."""
    _, frames = read_frames(path)
    segmentation = hd.seg.segread(path)
    stack = segmentation.get_volume(combine_segments=False, allow_missing_positions=True)
    assert [int(n) for n in segmentation.segment_numbers] == list(values)
    for number, value in values.items():
        expected = compute_patient_points(np.argwhere(mask == value), like.affine)
        hand = np.concatenate([place[bits > 0] for n, bits, place in frames if n == number])
        assert_same_points(hand, expected)
        channel = stack.array[..., number - 1]
        own = np.argwhere(channel) @ stack.affine[:3, :3].T + stack.affine[:3, 3]
        assert_same_points(own, expected)


def assert_on_its_images(path: Path, mask: np.ndarray, like: Volume) -> None:
    """Compare each frame with the slice of the image that it names as its source."""
    mask_of = {}
    for file in like.source.files:
        image = dcmread(file)
        rows, columns = np.mgrid[: image.Rows, : image.Columns]
        along = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
        down, across = map(float, image.PixelSpacing)
        place = np.array(image.ImagePositionPatient, float) + (
            columns[..., None] * across * along[0] + rows[..., None] * down * along[1]
        )
        to_index = np.linalg.inv(LPS @ like.affine)
        index = np.rint(place @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)
        mask_of[image.SOPInstanceUID] = mask[tuple(np.moveaxis(index, -1, 0))]
        # The test's own mapping is right if it leads to the voxels that the image holds.
        assert np.array_equal(like.array[tuple(np.moveaxis(index, -1, 0))], image.pixel_array)
    result, frames = read_frames(path)
    groups = result.PerFrameFunctionalGroupsSequence
    for (number, bits, _), group in zip(frames, groups, strict=True):
        named = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert np.array_equal(bits > 0, mask_of[named] == VALUES[number])
    uids = [dcmread(file).SOPInstanceUID for file in like.source.files]
    pixels = hd.seg.segread(path).get_pixels_by_source_instance(
        uids, ignore_spatial_locations=False, assert_missing_frames_are_empty=True
    )
    for number, value in VALUES.items():
        expected = np.stack([mask_of[uid] == value for uid in uids])
        assert np.array_equal(pixels[..., number - 1] > 0, expected)
