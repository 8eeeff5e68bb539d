"""The synthetic cohort: reproducible, readable, unbalanced, and not too easy."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from napari_dycon.demo.synthetic import CLASSES, make_case, write_cohort
from napari_dycon.io import read_label, read_volume

SEEDS = range(6)


@pytest.fixture(scope="module")
def cases():
    return [make_case(seed) for seed in SEEDS]


def test_cases_depend_on_the_seed():
    first, again, other = make_case(3), make_case(3), make_case(4)
    assert np.array_equal(first[0].array, again[0].array)
    assert np.array_equal(first[1], again[1])
    assert np.array_equal(first[0].affine, again[0].affine)
    assert first[0].array.shape != other[0].array.shape or not np.array_equal(first[1], other[1])


def test_a_case_is_a_small_scan_with_classes_in_realistic_shares(cases):
    assert CLASSES == ("organ", "lesion")
    for volume, truth in cases:
        assert volume.array.dtype == np.int16
        assert truth.dtype == np.uint8
        assert volume.array.shape == truth.shape
        assert all(60 <= n <= 76 for n in truth.shape)
        assert all(1.0 <= s <= 1.5 for s in volume.spacing_mm)
        assert len({round(s, 4) for s in volume.spacing_mm}) > 1
        assert set(np.unique(truth)) == {0, 1, 2}
        organ, lesion = (truth > 0).sum(), (truth == 2).sum()
        assert 0.03 < organ / truth.size < 0.2
        assert 0.005 < lesion / organ < 0.035


def test_the_organ_is_one_component_with_few_lesions_inside(cases):
    for volume, truth in cases:
        assert ndimage.label(truth > 0)[1] == 1
        parts, number = ndimage.label(truth == 2)
        assert 1 <= number <= 5
        voxel_ml = np.prod(volume.spacing_mm) / 1000
        sizes = np.bincount(parts.ravel())[1:] * voxel_ml
        assert sizes.max() < 1.6
        # At most a touching organ border is outside: lesions replace organ, not background.
        around = ndimage.binary_dilation(truth == 2) & (truth != 2)
        assert (truth[around] == 1).mean() > 0.6


def test_lesions_are_darker_than_the_organ_around_them_but_only_a_little(cases):
    for volume, truth in cases:
        image = volume.array.astype(float)
        lesion = truth == 2
        around = ndimage.binary_dilation(lesion, iterations=3) & (truth == 1)
        contrast = 1 - image[lesion].mean() / image[around].mean()
        assert 0.04 < contrast < 0.35
        # Single voxels cannot tell: the two distributions overlap.
        assert image[lesion].max() > np.percentile(image[around], 25)


def test_thresholding_does_not_find_the_organ(cases):
    for volume, truth in cases:
        image, organ = volume.array, truth > 0
        low, high = np.percentile(image[organ], [10, 90])
        similar = (image >= low) & (image <= high)
        assert (similar & ~organ).sum() > 0.5 * (similar & organ).sum()


def test_organs_vary_in_size_position_and_shape(cases):
    organs = [truth > 0 for _, truth in cases]
    volumes = [
        organ.sum() * np.prod(volume.spacing_mm)
        for organ, (volume, _) in zip(organs, cases, strict=True)
    ]
    assert max(volumes) > 1.2 * min(volumes)
    centers = np.array([np.argwhere(organ).mean(axis=0) for organ in organs])
    assert centers.std(axis=0).max() > 1.5
    # Irregular: clearly less than its bounding box's ellipsoid would fill (π/6), and not alike.
    fill = []
    for organ in organs:
        box = organ[ndimage.find_objects(organ.astype(int))[0]]
        fill.append(box.mean())
    assert np.std(fill) > 0.01


def test_the_cohort_on_disk_is_reproducible_byte_by_byte(tmp_path: Path):
    write_cohort(tmp_path / "a", cases=2, seed=1)
    write_cohort(tmp_path / "b", cases=1, seed=1)
    for part in ("images", "truth"):
        names = sorted(path.name for path in (tmp_path / "a" / part).iterdir())
        assert names == ["case-01.nii.gz", "case-02.nii.gz"]
        first = (tmp_path / "a" / part / names[0]).read_bytes()
        assert first == (tmp_path / "b" / part / names[0]).read_bytes()
        assert first != (tmp_path / "a" / part / names[1]).read_bytes()


def test_files_have_a_valid_header_and_read_back_as_the_case(tmp_path: Path):
    write_cohort(tmp_path, cases=5)
    orders = set()
    for number in range(1, 6):
        path = tmp_path / "images" / f"case-{number:02d}.nii.gz"
        header = nib.load(path).header
        assert header.get_data_dtype() == np.int16
        assert header.get_xyzt_units()[0] == "mm"
        assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
        orders.add(nib.aff2axcodes(header.get_best_affine()))

        volume, truth = make_case(number)
        image = read_volume(path)
        label = read_label(tmp_path / "truth" / path.name, reference=image)
        assert np.array_equal(image.array, volume.array)
        assert np.array_equal(label.array, truth)
        np.testing.assert_allclose(image.affine, volume.affine, atol=1e-4)
        assert volume.source.shape == image.source.shape
    assert len(orders) > 1
