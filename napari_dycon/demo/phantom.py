"""A scan composed of level sets, used to create the synthetic dataset.

Every structure is a level set: a field in millimeters that is positive inside. Painting a structure
blends its brightness over the existing image, weighted by the fraction of each border voxel that it
fills. All level sets use one randomly warped coordinate frame, so that the anatomy varies as a
whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Field = npt.NDArray[np.float32]

BORDER_WIDTH_MM = 1.6  # width of the transition from outside to inside


@dataclass
class Scene:
    """The scan being painted, and the warped frame in which structures are placed."""

    rng: np.random.Generator
    spacing: tuple[float, float, float]
    half_extent_mm: npt.NDArray[np.float64]  # half the field of view along S, P, L in mm
    frame: tuple[Field, Field, Field]  # mm from the center along S, P, L, each (D, H, W)
    image: Field

    @classmethod
    def create(cls, rng: np.random.Generator) -> Scene:
        """Create an empty scan of about 64×72×64 slightly anisotropic voxels."""
        shape = tuple(int(n + rng.integers(-2, 3)) for n in (64, 72, 64))
        in_plane = float(np.round(rng.uniform(1.05, 1.25), 3))
        spacing = (float(np.round(rng.uniform(1.2, 1.5), 2)), in_plane, in_plane)
        half_extent_mm = np.array(shape) * spacing / 2
        axes = [
            (np.arange(n) + 0.5) * s - h
            for n, s, h in zip(shape, spacing, half_extent_mm, strict=True)
        ]
        grid = np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij")
        scene = cls(
            rng, spacing, half_extent_mm, (grid[0], grid[1], grid[2]), np.zeros(shape, np.float32)
        )
        warped = [axis + 2.5 * scene.noise(14.0) for axis in grid]
        scene.frame = (warped[0], warped[1], warped[2])
        return scene

    def noise(self, width_mm: float) -> Field:
        """Smooth random field, mean 0 and deviation 1, with structure of about ``width_mm``."""
        shape = self.image.shape
        white = self.rng.standard_normal(shape, dtype=np.float32)
        spectrum = np.fft.rfftn(white)
        for axis, (n, step) in enumerate(zip(shape, self.spacing, strict=True)):
            wave = np.fft.rfftfreq(n, step) if axis == 2 else np.fft.fftfreq(n, step)
            damp = np.exp(-2.0 * (np.pi * wave * width_mm) ** 2).astype(np.float32)
            spectrum *= damp.reshape([-1 if a == axis else 1 for a in range(3)])
        field = np.fft.irfftn(spectrum, shape, axes=(0, 1, 2)).astype(np.float32)
        return np.asarray((field - field.mean()) / field.std(), np.float32)

    def ellipsoid(
        self,
        center: tuple[float, float, float],
        radii: tuple[float, float, float],
        tilt: float = 0.0,
    ) -> Field:
        """Level set of an ellipsoid turned by up to ``tilt`` radians about each axis."""
        rotation = np.eye(3)
        for angle, (a, b) in zip(
            self.rng.uniform(-tilt, tilt, 3), ((0, 1), (0, 2), (1, 2)), strict=True
        ):
            plane_rotation = np.eye(3)
            plane_rotation[[a, a, b, b], [a, b, a, b]] = np.cos([angle, 0, 0, angle])
            plane_rotation[a, b], plane_rotation[b, a] = -np.sin(angle), np.sin(angle)
            rotation = rotation @ plane_rotation
        local = [axis - c for axis, c in zip(self.frame, center, strict=True)]
        squared_radius = np.zeros_like(self.image)
        for row, radius in zip(rotation.astype(np.float32), radii, strict=True):
            squared_radius += (
                (row[0] * local[0] + row[1] * local[1] + row[2] * local[2]) / radius
            ) ** 2
        return np.asarray((1.0 - np.sqrt(squared_radius)) * min(radii), np.float32)

    def tube(self, points: npt.NDArray[np.float64], radius: Field | float) -> Field:
        """Level set of a vessel along ``points`` (N, 3) in mm of the unwarped frame."""
        voxels = np.round((points + self.half_extent_mm) / self.spacing - 0.5).astype(int)
        inside = ((voxels >= 0) & (voxels < self.image.shape)).all(axis=1)
        empty = np.ones(self.image.shape, bool)
        empty[tuple(voxels[inside].T)] = False
        distance = ndimage.distance_transform_edt(empty, sampling=self.spacing)
        return np.asarray(radius - distance, np.float32)

    def paint(
        self, level: Field, brightness: Field | float, width_mm: float = BORDER_WIDTH_MM
    ) -> None:
        """Blend ``brightness`` over the scan where ``level`` is positive."""
        fraction = np.clip(0.5 + level / width_mm, 0.0, 1.0)
        self.image += fraction * (brightness - self.image)

    def random_path(
        self, start: npt.NDArray[np.float64], heading: npt.NDArray[np.float64], length_mm: float
    ) -> npt.NDArray[np.float64]:
        """Return a random path (N, 3) in mm with one point every 0.7 mm."""
        points, direction = [start], heading / np.linalg.norm(heading)
        for _ in range(int(length_mm / 0.7)):
            direction = direction + self.rng.normal(0.0, 0.09, 3)
            direction /= np.linalg.norm(direction)
            points.append(points[-1] + 0.7 * direction)
        return np.array(points)

    def acquire(self) -> npt.NDArray[np.int16]:
        """Simulate acquisition: blur, coil bias, Rician noise, quantization."""
        rng = self.rng
        blurred = ndimage.gaussian_filter(self.image, (0.6, 0.5, 0.5))
        coil_bias = np.exp(rng.uniform(0.08, 0.13) * self.noise(26.0))
        signal = blurred * coil_bias
        sigma = rng.uniform(0.026, 0.040)
        real, imaginary = rng.normal(0.0, sigma, (2, *signal.shape))
        magnitude = np.hypot(signal + real, imaginary)
        return np.asarray(np.round(magnitude * rng.uniform(600.0, 1100.0)), np.int16)
