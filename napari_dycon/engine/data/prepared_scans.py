"""Preprocessed scans and reference labels for validation and previews."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_dycon.core.types import LabelArray
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.preprocessing import (
    cache_path,
    prepare_image,
    read_image_array,
    save_array,
)
from napari_dycon.errors import ProjectError
from napari_dycon.io.volume import Volume

if TYPE_CHECKING:
    from napari_dycon.project.store import Project


class PreparedScans:
    """Preprocessed scans of a project, read from its cache; only their grids stay in memory.

    Reading and normalizing a scan for every validation would take longer than predicting it.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._cached_grids: dict[Path, tuple[Volume, tuple[int, ...]]] = {}

    def read(self, case: str, config: TrainConfig) -> tuple[Volume, npt.NDArray[np.float32]]:
        """Return the grid of a scan without its voxels, and the prepared scan ``(C, D, H, W)``."""
        path = None
        with contextlib.suppress(OSError):  # reading the scan below reports the error
            images = self._project.image_paths(case)
            path = cache_path(self._project.cache_folder, case, images, config)
        if path is not None and path in self._cached_grids:
            grid, shape = self._cached_grids[path]
            with contextlib.suppress(ProjectError, OSError):  # deleted or damaged in the meantime
                prepared = read_image_array(path, mapped=False)
                if prepared.shape == shape:
                    return grid, prepared
        volume = self._project.read_image(case)
        prepared = prepare_image(volume, config)
        if path is not None:
            with contextlib.suppress(ProjectError, OSError):  # the cache only saves time
                if not path.exists():
                    save_array(path, prepared)
                self._cached_grids[path] = volume.grid_only(), prepared.shape
        return volume, prepared

    def read_label(self, case: str, grid: Volume) -> LabelArray | None:
        """Read the current label of a case, uint8 ``(D, H, W)``; ``None`` if it has none."""
        return self._project.labels.read(case, reference=grid)
