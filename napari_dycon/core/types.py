"""Types and constants shared by all packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, ...]  # one slice object per axis
LabelArray = npt.NDArray[np.uint8]  # class values; 0 is background
ProgressCallback = Callable[[int, int], None]  # number of items done, and total number
ItemProgressCallback = Callable[[int, int, str], None]  # the same, with the name of the item
UNANNOTATED = 255  # value of unannotated voxels in a label
