"""Files with pickled objects that must never be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def save_object_array(path: Path, thing: object) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([thing], dtype=object), allow_pickle=True)


def save_array_archive(path: Path, thing: object) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
