"""Anatomical planes: which axes a view displays, in which direction, and the letters at its edges.

Voxels are canonical, with axes towards superior, posterior and left (see :mod:`napari_dycon.io`).
All planes are shown in radiological convention: superior is up, the patient's left is on the right
of axial and coronal slices, and anterior is on the left of sagittal slices and at the top of axial
ones.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SUPERIOR_AXIS = 0  # the only axis that points up; the others point down or right
# A second letter is shown if the axis deviates by more than 10 degrees, as in "AS".
MIN_LETTER_COMPONENT = float(np.sin(np.deg2rad(10.0)))
RAS_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))  # for the positive and the negative direction


class Plane(enum.Enum):
    """A plane; the value is the array axis along which its slices are browsed."""

    AXIAL = 0
    CORONAL = 1
    SAGITTAL = 2

    @property
    def title(self) -> str:
        """Name of the plane in lower case."""
        return self.name.lower()

    @property
    def displayed_axes(self) -> tuple[int, int]:
        """The vertical and the horizontal axis of a slice."""
        vertical, horizontal = (axis for axis in range(3) if axis != self.value)
        return vertical, horizontal

    @property
    def order(self) -> tuple[int, int, int]:
        """Order of the axes in napari's ``Dims``: the browsed one first."""
        return (self.value, *self.displayed_axes)

    @property
    def vertical_orientation(self) -> str:
        """Direction of the vertical axis in napari's camera: "up" or "down"."""
        return "up" if self.displayed_axes[0] == SUPERIOR_AXIS else "down"


@dataclass(frozen=True)
class EdgeLetters:
    """Directions of the patient at the edges of a view, such as "R", "A" or "AS"."""

    left: str
    right: str
    top: str
    bottom: str


def compute_edge_letters(affine: npt.NDArray[np.float64], plane: Plane) -> EdgeLetters:
    """Compute the letters at the edges of a view.

    Parameters
    ----------
    affine : (4, 4), canonical voxel index to RAS+ millimeters; may be oblique
    plane : plane of the view
    """
    vertical_axis, horizontal_axis = plane.displayed_axes
    down = affine[:3, vertical_axis]
    if plane.vertical_orientation == "up":
        down = -down
    return name_edges(affine[:3, horizontal_axis], -down)


def name_edges(right: npt.NDArray[np.float64], upward: npt.NDArray[np.float64]) -> EdgeLetters:
    """Name the directions at the edges of a view.

    Parameters
    ----------
    right, upward : directions in RAS+ to the right and to the top of the view
    """
    return EdgeLetters(
        left=describe_direction(-right),
        right=describe_direction(right),
        top=describe_direction(upward),
        bottom=describe_direction(-upward),
    )


def describe_direction(direction: npt.NDArray[np.float64]) -> str:
    """Describe a direction in RAS+ by one letter, or by two if it is oblique.

    The letter of the largest component comes first.
    """
    components = direction / np.linalg.norm(direction)
    largest_first = np.argsort(-np.abs(components), kind="stable")[:2]
    return "".join(
        RAS_LETTERS[axis][0 if components[axis] > 0 else 1]
        for position, axis in enumerate(largest_first)
        if position == 0 or abs(components[axis]) >= MIN_LETTER_COMPONENT
    )


def choose_radiological_plane(order: tuple[int, ...], previous: Plane) -> Plane:
    """Choose the plane for an order of axes that napari's controls requested.

    napari's button and key for "roll axes" move the last axis to the front, which would also show
    slices rotated. They step through the three planes instead. Transposing keeps the plane.
    """
    if order == tuple(np.roll(previous.order, 1)):
        return Plane((previous.value - 1) % 3)
    return Plane(order[0])
