"""Detection of scans where masks are expected, and of masks where scans are."""

from __future__ import annotations

import numpy as np

from napari_dycon.core.types import UNANNOTATED, Array, LabelArray

# Neighboring voxels of a structure have the same value, those of a scan rarely do: noise. With few
# values this says nothing.
MIN_VALUES = 25
MIN_AGREEMENT = 0.5
MAX_EXAMPLES = 3
MAX_MASK_VALUES = 8  # scans have more
N_SAMPLES = 100_000  # of the voxels of a scan


def describe_scan_values(array: Array) -> str | None:
    """Describe values that no mask has; ``None`` if all are whole numbers from 0 to 255."""
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return "values that are not finite numbers"
    fractional = array[array != np.rint(array)] if array.dtype.kind == "f" else array[:0]
    if fractional.size:
        return f"values that are not whole numbers, such as {fractional.flat[0]:.4g}"
    if low < 0 or high > 255:
        return f"values from {low:g} to {high:g}"
    return None


def describe_scan_texture(mask: LabelArray) -> str | None:
    """Describe a mask that has many values and no regions of one value; ``None`` for others."""
    values = np.unique(mask)
    if len(values) < MIN_VALUES:
        return None
    n_agreeing = n_pairs = 0
    for axis in range(mask.ndim):
        first = mask[tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))]
        second = mask[tuple(slice(1, None) if a == axis else slice(None) for a in range(3))]
        is_foreground = (first != 0) & (second != 0)
        n_pairs += int(np.count_nonzero(is_foreground))
        n_agreeing += int(np.count_nonzero((first == second) & is_foreground))
    if not n_pairs or n_agreeing / n_pairs >= MIN_AGREEMENT:
        return None
    middle = len(values) // 2
    examples = ", ".join(str(int(value)) for value in values[middle : middle + MAX_EXAMPLES])
    return f"{len(values)} distinct values, such as {examples}, that change from voxel to voxel"


def describe_mask_values(array: Array) -> str | None:
    """Describe an array with a few whole numbers from 0 on, as masks have; ``None`` for a scan."""
    voxels = array.reshape(-1)
    values = np.unique(voxels[:: max(voxels.size // N_SAMPLES, 1)])
    if not 1 < len(values) <= MAX_MASK_VALUES or values[0] != 0:
        return None
    if not np.array_equal(values, np.rint(values)) or values[-1] > UNANNOTATED:
        return None
    return f"only the values {', '.join(f'{value:g}' for value in values)}"
