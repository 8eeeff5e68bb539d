"""The built-in synthetic dataset: seeded abdominal scans of an organ with small lesions.

Made for demonstrations and tests where no patient data may be used. A case looks like a crop of a
T1-weighted MR scan: body wall, spine, vessels, kidney and bowel around one irregular organ whose
brightness they share, a smooth coil bias, blurred borders and Rician noise. One to five lesions
hold 1 to 3 % of the organ's volume at a contrast close to the texture's own, so that class
imbalance and ambiguous borders are realistic.

``phantom.py`` draws structures; this module defines which ones, and where.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_dycon.core.types import LabelArray, Mask
from napari_dycon.demo.phantom import Field, Scene
from napari_dycon.io.volume import Source, Volume, from_canonical

CLASSES = ("organ", "lesion")
ORGAN, LESION = 1, 2

# Axis orders in which scanners and tools store scans.
SCANNER_AXES = ("RAS", "LPS", "LAS", "RPS", "SPL")
LESION_VOLUME_ML = (0.1, 1.5)
LESION_FRACTION = (0.011, 0.028)  # of the organ's volume, all lesions together


def make_case(seed: int) -> tuple[Volume, LabelArray]:
    """Make one scan and its truth; the same seed gives the same voxels.

    Parameters
    ----------
    seed : any integer of at least 0

    Returns
    -------
    volume : int16, (D, H, W) of about 64×72×64 voxels of 1.0 to 1.5 mm
    truth : uint8 (D, H, W), 0 background, 1 organ, 2 lesion
    """
    rng = np.random.default_rng(seed)
    scene = Scene.create(rng)
    cavity = _paint_body(scene)
    _add_neighboring_organs(scene, cavity)
    organ = _build_organ_level(scene, _paint_spine_and_vessels(scene, cavity))
    lesions = _add_organ(scene, organ)
    truth = np.where(organ > 0, ORGAN, 0).astype(np.uint8)
    truth[lesions & (organ > 0)] = LESION
    voxels = scene.acquire()
    source, affine = _sample_pose(rng, voxels.shape, scene.spacing)
    return Volume(array=voxels, affine=affine, source=source), truth


def write_cohort(folder: Path, *, cases: int = 16, seed: int = 0) -> None:
    """Write ``images/case-01.nii.gz`` and on, and ``truth/`` with the same names, into ``folder``.

    The files differ in size, spacing, order and direction of their axes, as scans do. The same
    seed gives the same bytes, and case k does not depend on how many cases there are.
    """
    for name in ("images", "truth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(1, cases + 1):
        volume, truth = make_case(seed * 100_000 + number)
        name = f"case-{number:02d}.nii.gz"
        _write_nifti(
            from_canonical(volume.array, volume.source), volume.source, folder / "images" / name
        )
        _write_nifti(from_canonical(truth, volume.source), volume.source, folder / "truth" / name)


def _write_nifti(array: npt.NDArray[np.generic], source: Source, path: Path) -> None:
    image = nib.Nifti1Image(np.ascontiguousarray(array), source.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(source.affine, code=1)
    image.set_sform(source.affine, code=1)
    nib.save(image, path)


def _sample_pose(
    rng: np.random.Generator, shape: tuple[int, ...], spacing: tuple[float, float, float]
) -> tuple[Source, npt.NDArray[np.float64]]:
    """Sample the pose of the scan in RAS+ mm, and the order of axes of its file."""
    size = np.array(shape) * spacing
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing[0], -spacing[1], -spacing[2]
    affine[:3, 3] = np.array([size[2], size[1], -size[0]]) / 2 + np.round(
        rng.uniform(-30, 30, 3), 1
    )

    codes = tuple(SCANNER_AXES[rng.integers(len(SCANNER_AXES))])
    stored_axes = nib.orientations.axcodes2ornt(codes)
    transform = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(("S", "P", "L")), stored_axes
    )
    on_disk = affine @ nib.orientations.inv_ornt_aff(transform, shape)
    i, j, k = (int(shape[int(np.flatnonzero(transform[:, 0] == axis)[0])]) for axis in range(3))
    return Source(path=None, shape=(i, j, k), affine=on_disk, header=None), affine


def _paint_body(scene: Scene) -> Field:
    """Paint skin, fat, muscle, ribs and what fills the cavity; return the cavity's level set."""
    rng, (z, y, x) = scene.rng, scene.frame
    u = rng.uniform
    _, half_y, half_x = scene.half_extent_mm
    grain = scene.noise(1.3)

    # An oval that extends above and below the field of view, with more fat behind.
    oval = np.hypot(x / (0.97 * half_x), (y - 1.0) / (0.93 * half_y))
    body = np.asarray((1.0 - oval) * 0.95 * half_x + 0.8 * scene.noise(9.0), np.float32)
    fat = u(2.5, 5.0) + 1.1 * scene.noise(7.0) + np.clip(0.07 * y, 0.0, 3.0)
    cavity = np.asarray(body - fat - u(3.0, 4.5), np.float32)
    scene.paint(body, 0.5)
    scene.paint(body - 1.2, 0.86 + 0.03 * grain)
    scene.paint(body - fat, 0.36 + 0.05 * scene.noise(2.5))
    period = u(13.0, 16.0)
    rib = 3.0 - np.abs((z + 0.6 * y) % period - period / 2)
    rib = np.minimum(rib, 1.9 - np.abs(cavity + 1.9))
    scene.paint(rib + 0.6, 0.14, 1.0)
    scene.paint(rib - 0.6, 0.58)

    strand = np.abs(scene.noise(3.2)) - 1.2
    scene.paint(cavity, u(0.76, 0.83) + 0.04 * grain + 0.06 * scene.noise(6.0))
    scene.paint(np.minimum(strand, cavity), u(0.42, 0.50) + 0.04 * grain, 1.0)
    return cavity


def _paint_spine_and_vessels(scene: Scene, cavity: Field) -> Field:
    """Paint what runs from head to feet; return the level set of the room left in the cavity."""
    rng, (z, _, _), texture = scene.rng, scene.frame, scene.noise(2.0)
    u = rng.uniform
    spine_offset = _spine_offset_mm(scene)
    for side in (-1.0, 1.0):
        muscle = scene.ellipsoid((0.0, spine_offset + 6.0, side * 14.0), (200.0, 8.0, 10.0))
        scene.paint(muscle + 0.6 * texture, 0.34 + 0.06 * texture)
    vertebra = scene.ellipsoid((0.0, spine_offset, 0.0), (400.0, 8.5, 10.5))
    scene.paint(vertebra + 1.2, 0.12)
    scene.paint(vertebra, u(0.55, 0.68) + 0.05 * texture)
    period = u(17.0, 21.0)
    disc = 2.2 - np.abs((z + u(0.0, period)) % period - period / 2)
    scene.paint(np.minimum(disc, vertebra), u(0.28, 0.36), 2.0)
    canal = scene.ellipsoid((0.0, spine_offset + 13.0, 0.0), (400.0, 5.0, 6.0))
    scene.paint(canal + 1.0, 0.14)
    scene.paint(canal, 0.24)
    scene.paint(canal - 2.0, 0.46)

    # Aorta and vena cava, dark or bright with the flow.
    flow = u(0.10, 0.22) if rng.random() < 0.6 else u(0.64, 0.72)
    for lateral, radius in ((5.0, u(3.8, 4.6)), (-7.0, u(4.4, 5.2))):
        radii = (400.0, radius, radius * u(0.9, 1.25))
        vessel = scene.ellipsoid((0.0, spine_offset - 13.0, lateral), radii)
        scene.paint(vessel + 0.8, 0.42)
        scene.paint(vessel, flow + 0.03 * texture)
    spine_region = scene.ellipsoid((0.0, spine_offset - 3.0, -1.0), (400.0, 15.5, 15.0))
    return np.asarray(np.minimum(cavity - 0.5, -spine_region), np.float32)


def _add_neighboring_organs(scene: Scene, cavity: Field) -> None:
    """Paint kidneys, spleen, stomach and bowel, about as bright as the organ."""
    rng, loose = scene.rng, scene.noise(3.2)
    u = rng.uniform
    spine_offset, tissue, grain = _spine_offset_mm(scene), u(0.45, 0.50), scene.noise(1.3)
    for side in (-1.0, 1.0):
        center = (u(-16.0, 4.0), spine_offset - u(1.0, 5.0), side * u(19.0, 22.0))
        kidney = scene.ellipsoid(center, (u(15.0, 19.0), u(7.5, 9.0), u(6.5, 8.0)), 0.25)
        kidney = np.minimum(kidney, cavity + 1.0)
        scene.paint(kidney, tissue + u(-0.04, 0.06) + 0.02 * grain)
        scene.paint(kidney - 4.0 + 1.6 * loose, u(0.36, 0.44), 2.5)
    spleen = scene.ellipsoid((u(4.0, 22.0), u(-2.0, 8.0), u(24.0, 29.0)), (17.0, 12.0, 7.5), 0.3)
    spleen = np.minimum(spleen + scene.noise(6.0), cavity)
    scene.paint(spleen, tissue + u(-0.10, 0.05) + 0.025 * grain)
    center = (u(0.0, 20.0), u(-20.0, -10.0), u(12.0, 19.0))
    stomach = scene.ellipsoid(center, (16.0, 10.0, 11.0), 0.5)
    stomach = np.minimum(stomach + 1.5 * scene.noise(7.0), cavity)
    scene.paint(stomach, tissue + u(-0.05, 0.03))
    scene.paint(stomach - 2.2, u(0.22, 0.40) + 0.05 * loose, 2.0)
    for _ in range(int(rng.integers(2, 5))):
        start = np.array([u(-34.0, -8.0), u(-20.0, 4.0), u(-14.0, 22.0)])
        loop = scene.tube(scene.random_path(start, rng.normal(size=3), u(40.0, 80.0)), u(4.0, 5.5))
        loop = np.minimum(loop + 0.7 * loose, cavity)
        scene.paint(loop, tissue + u(-0.07, 0.05))
        scene.paint(loop - 2.2, u(0.15, 0.5), 2.0)


def _spine_offset_mm(scene: Scene) -> float:
    """Distance of the spine behind the center, in mm."""
    return 0.52 * float(scene.half_extent_mm[1])


def _build_organ_level(scene: Scene, free_space: Field) -> Field:
    """Level set (D, H, W) of the organ: merged lobes that fill the free space."""
    u = scene.rng.uniform
    size = u(1.08, 1.26)
    center = np.array([u(-6.0, 8.0), u(-12.0, -2.0), u(-15.0, -9.0)])
    radii = (size * u(19, 25), size * u(16, 21), size * u(15, 19))
    lobes = [scene.ellipsoid(tuple(center), radii, 0.45)]
    for _ in range(int(scene.rng.integers(1, 3))):
        lobe_center = center + np.array([u(-12.0, 12.0), u(-14.0, 4.0), u(4.0, 18.0)])
        radii = (size * u(10, 15), size * u(9, 12), size * u(10, 15))
        lobes.append(scene.ellipsoid(tuple(lobe_center), radii, 0.6))
    joined = 3.0 * np.logaddexp.reduce([lobe / 3.0 for lobe in lobes], axis=0)
    ragged = joined + 2.2 * scene.noise(8.0) + 0.5 * scene.noise(3.0)
    level = np.asarray(np.minimum(ragged, free_space), np.float32)
    components, _ = ndimage.label(level > 0)
    largest = np.argmax(np.bincount(components.ravel())[1:]) + 1
    return np.where((components == largest) | (level <= 0), level, -level).astype(np.float32)


def _add_organ(scene: Scene, organ: Field) -> Mask:
    """Paint the organ with its vessels and lesions; return the mask of the lesions."""
    rng, u = scene.rng, scene.rng.uniform
    base = u(0.53, 0.58)
    texture = 0.022 * scene.noise(1.4) + 0.022 * scene.noise(3.5) + 0.02 * scene.noise(10.0)
    tissue = base + texture
    scene.paint(organ, tissue)

    inside = np.argwhere(organ > 4.0)
    for _ in range(int(rng.integers(4, 8))):
        start = (inside[rng.integers(len(inside))] + 0.5) * scene.spacing - scene.half_extent_mm
        path = scene.random_path(start, rng.normal(size=3), u(15.0, 40.0))
        vessel = np.minimum(scene.tube(path, u(0.8, 1.8)), organ - 1.0)
        change = u(-0.18, -0.08) if rng.random() < 0.6 else u(0.08, 0.16)
        scene.paint(vessel, tissue + change, 2.0)

    lesions = np.zeros(organ.shape, bool)
    for volume_ml in _sample_lesion_volumes(
        rng, float((organ > 0).sum() * np.prod(scene.spacing)) / 1e3
    ):
        level = _build_lesion_level(scene, np.where(lesions, -9.0, organ), volume_ml)
        change = base * u(-0.30, -0.19)
        if rng.random() < 0.25:  # a thin rim that takes up contrast agent
            scene.paint(np.minimum(level + 1.0, organ), tissue + 0.3 * abs(change))
        scene.paint(level, tissue + change * (1.0 + 0.25 * scene.noise(2.0)), u(1.5, 2.8))
        lesions |= level > 0
    return lesions


def _sample_lesion_volumes(rng: np.random.Generator, organ_ml: float) -> list[float]:
    """Split 1 to 3 % of the organ among 1 to 5 lesions of 0.1 to 1.5 ml."""
    total = organ_ml * rng.uniform(*LESION_FRACTION)
    count = min(int(rng.integers(1, 6)), max(1, int(total / 0.18)))
    fractions = rng.dirichlet(np.full(count, 2.0))
    return [float(np.clip(total * fraction, *LESION_VOLUME_ML)) for fraction in fractions]


def _build_lesion_level(scene: Scene, free_space: Field, volume_ml: float) -> Field:
    """Level set of one irregular lesion of ``volume_ml`` where ``free_space`` is positive."""
    rng = scene.rng
    radius = (volume_ml * 1000.0 * 3.0 / (4.0 * np.pi)) ** (1.0 / 3.0)
    positions = np.argwhere(free_space > min(0.6 * radius, 0.5 * float(free_space.max())))
    position = tuple(positions[rng.integers(len(positions))])
    z, y, x = (float(axis[position]) for axis in scene.frame)
    a, b = rng.uniform(0.75, 1.35, 2)
    radii = (radius * a, radius * b, radius / (a * b))
    blob = scene.ellipsoid((z, y, x), radii, 1.5)
    blob += 0.24 * radius * scene.noise(max(2.2, 0.55 * radius))
    blob = np.where(free_space > 0.4, blob, -99.0)
    n_voxels = round(volume_ml * 1000.0 / float(np.prod(scene.spacing)))
    threshold = np.partition(blob.ravel(), -n_voxels)[-n_voxels]
    components, _ = ndimage.label(blob >= threshold)
    largest = np.argmax(np.bincount(components.ravel())[1:]) + 1
    level = blob - threshold + 1e-3
    return np.where((components == largest) | (level <= 0), level, -1.0).astype(np.float32)
