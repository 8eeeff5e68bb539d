"""Untrusted arrays in the cache of preprocessed scans."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.pickled_files import Bomb, save_array_archive, save_object_array

from napari_dycon.engine.data import preprocessing
from napari_dycon.errors import ProjectError


@pytest.mark.parametrize(
    "make",
    [
        lambda p, t: save_object_array(p, t),
        lambda p, t: save_array_archive(p, t),
        lambda p, t: p.write_bytes(pickle.dumps(t)),
        lambda p, t: np.save(p, np.zeros((2, 2), np.float32)),
        lambda p, t: np.save(p, np.zeros((1, 2, 2, 2), np.complex64)),
        lambda p, t: p.write_bytes(
            b"\x93NUMPY\x01\x00\x76\x00"
            + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 9999999999999999999, 9, 9)}"
            .ljust(117) + b"\n"
        ),
        lambda p, t: p.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + (b"(" * 117) + b"\n"),
        lambda p, t: p.mkdir(),
    ],
)  # fmt: skip
def test_an_external_cache_must_contain_numbers(
    make: Callable[[Path, object], None], tmp_path: Path
) -> None:
    path, trace = tmp_path / "case-0123.npy", tmp_path / "trace"
    make(path, Bomb(trace))
    with pytest.raises(ProjectError, match=r"The prepared scan case-0123\.npy"):
        preprocessing.read_image_array(path)
    assert not trace.exists()


def test_a_missing_cache_raises_a_system_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="are missing"):
        preprocessing.read_image_array(tmp_path / "case-0123.npy")
