"""Write and read again: exact in every orientation, type and format, also for other readers."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel import orientations

from napari_dycon.errors import FileFormatError
from napari_dycon.io import read_label, read_volume, write_mask, write_volume
from napari_dycon.io.volume import grid_difference

ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*order)
]
TYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")
FORMATS = (".nii", ".nii.gz", ".nrrd", ".mha")
SHAPE = (3, 4, 5)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def make_affine(codes: str) -> np.ndarray:
    affine = np.array([[0, 0, 0, 31.5], [0, 0, 0, -12.25], [0, 0, 0, 7.125], [0, 0, 0, 1.0]])
    for axis, (world, sign) in enumerate(orientations.axcodes2ornt(codes).astype(int)):
        affine[world, axis] = sign * (0.7, 1.1, 2.5)[axis]
    return affine


def make_oblique_affine(angle: float = 0.35) -> np.ndarray:
    turn = np.eye(3)
    for axes in ((0, 1), (1, 2)):
        part = np.eye(3)
        part[np.ix_(axes, axes)] = [
            [np.cos(angle), -np.sin(angle)],
            [np.sin(angle), np.cos(angle)],
        ]
        turn = turn @ part
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.7, 1.1, 2.5)
    affine[:3, 3] = (-40.25, 1e4, -3.5)
    return affine


def write_with_itk(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write with the format's own library, not with this program."""
    if ".nii" in path.name:
        image = nib.Nifti1Image(array, affine)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=2)
        nib.save(image, path)
        return
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))


def read_with_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (i, j, k) and affine to RAS mm by the format's own library."""
    if ".nii" in path.name:
        image = nib.load(path)
        return np.asarray(image.dataobj), image.affine
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS @ affine


def check_round_trip(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    write_with_itk(path, array, affine)
    volume = read_volume(path)
    stored, where = read_with_itk(path)
    assert np.array_equal(stored, array)
    assert np.allclose(volume.source.affine, where, atol=1e-6)
    # Canonical axes agree with nibabel's own turning of the same voxels.
    turned = nib.as_closest_canonical(nib.Nifti1Image(stored.astype("f8"), where))
    wanted = np.asarray(turned.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
    assert np.array_equal(volume.array, wanted)
    again = path.with_name(f"again{path.name[path.name.index('.') :]}")
    write_volume(volume.array, reference=volume, path=again)
    voxels, place = read_with_itk(again)
    assert voxels.dtype == array.dtype
    assert np.array_equal(voxels, array)
    assert np.allclose(place, where, atol=1e-6)
    if ".nii" in path.name:
        for field in ("qform_code", "sform_code", "srow_x", "quatern_b", "pixdim"):
            assert np.array_equal(nib.load(path).header[field], nib.load(again).header[field])
    back = read_volume(again)
    assert np.array_equal(back.array, volume.array)
    assert np.allclose(back.affine, volume.affine, atol=1e-6)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_orientation_survives_a_round_trip(dtype: str, ending: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = np.arange(60).reshape(SHAPE).astype(dtype)
    if dtype.startswith("float"):
        array = array + rng.random(SHAPE).astype(dtype)
    for codes in ORIENTATIONS:
        check_round_trip(tmp_path / f"{codes}{ending}", array, make_affine(codes))


@pytest.mark.parametrize("ending", FORMATS)
def test_unusual_affines_survive_a_round_trip(ending: str, tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.int16).reshape(SHAPE)
    mirrored = make_oblique_affine() @ np.diag([1.0, 1.0, -1.0, 1.0])
    tiny = make_oblique_affine() @ np.diag([1e-3, 1e-3, 1e-3, 1.0])
    huge = make_oblique_affine() @ np.diag([50.0, 50.0, 50.0, 1.0])
    for number, affine in enumerate((make_oblique_affine(), mirrored, tiny, huge)):
        check_round_trip(tmp_path / f"{number}{ending}", array, affine.astype(np.float32))


def test_sheared_axes_are_read_from_nifti(tmp_path: Path) -> None:
    affine = np.array([[0.9, 0.2, 0, 1], [0, 1.1, 0.1, 2], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(SHAPE), affine)
    nib.save(image, tmp_path / "s.nii")
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(tmp_path / "s.nii"))
    volume = read_volume(tmp_path / "s.nii")
    for ending in (".nrrd", ".mha", ".nii.gz"):
        write_volume(volume.array, reference=volume, path=tmp_path / f"t{ending}")
        assert grid_difference(read_volume(tmp_path / f"t{ending}"), volume) is None


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_labels_of_scans_in_other_formats_are_aligned(ending: str, tmp_path: Path) -> None:
    write_with_itk(
        tmp_path / f"scan{ending}",
        np.arange(60, dtype=np.int16).reshape(SHAPE),
        make_oblique_affine(),
    )
    scan = read_volume(tmp_path / f"scan{ending}")
    mask = (scan.array % 3).astype(np.uint8)
    write_mask(mask, reference=scan, path=tmp_path / "label.nii.gz")
    assert np.array_equal(read_label(tmp_path / "label.nii.gz", reference=scan).array, mask)
    # SimpleITK, which prefers the q form, finds it at the same place.
    label = sitk.ReadImage(str(tmp_path / "label.nii.gz"))
    image = sitk.ReadImage(str(tmp_path / f"scan{ending}"))
    for index in itertools.product((0, 2), (0, 3), (0, 4)):
        apart = np.subtract(
            label.TransformIndexToPhysicalPoint(index), image.TransformIndexToPhysicalPoint(index)
        )
        assert np.abs(apart).max() < 2e-3


def test_detached_headers_are_read(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.int16).reshape(SHAPE)
    for ending, data in ((".nhdr", "*.raw*"), (".mhd", "*.raw")):
        folder = tmp_path / ending[1:]
        folder.mkdir()
        write_with_itk(folder / f"s{ending}", array, make_oblique_affine())
        volume = read_volume(folder / f"s{ending}")
        assert np.array_equal(np.sort(volume.array, axis=None), np.arange(60))
        (voxels,) = folder.glob(data)
        header = (folder / f"s{ending}").read_text()
        for name in (
            f"../{voxels.name}",
            r"\\host\x\s.raw",
            "//host/x/s.raw",
            "C:s.raw",
            str(voxels),
        ):
            (folder / f"s{ending}").write_text(header.replace(voxels.name, name))
            with pytest.raises(FileFormatError, match="are outside its folder"):
                read_volume(folder / f"s{ending}")
        (folder / f"s{ending}").write_text(header.replace(voxels.name, "other.raw"))
        with pytest.raises(FileFormatError, match=r"other\.raw, is missing"):
            read_volume(folder / f"s{ending}")


def test_ambiguous_q_and_s_forms_are_reported(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.int16).reshape(SHAPE)
    image = nib.Nifti1Image(array, make_oblique_affine())
    image.set_sform(make_oblique_affine(), code=2)
    moved = make_oblique_affine()
    moved[0, 3] += 5
    image.set_qform(moved, code=1)
    nib.save(image, tmp_path / "two.nii")
    volume = read_volume(tmp_path / "two.nii")
    assert "differ by up to 5 mm. The s form is used" in volume.notes[0]
    assert np.allclose(volume.source.affine, nib.load(tmp_path / "two.nii").affine)
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "q.nii")
    volume = read_volume(tmp_path / "q.nii")
    assert not volume.notes
    assert np.allclose(volume.source.affine, moved, atol=1e-3)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "none.nii")
    assert "does not specify its orientation" in read_volume(tmp_path / "none.nii").notes[0]
    image.set_sform(np.zeros((4, 4)), code=1)
    image.set_qform(moved, code=1)
    image.header["sform_code"] = 1
    image.header["srow_x"] = image.header["srow_y"] = image.header["srow_z"] = 0
    (tmp_path / "odd.nii").write_bytes(image.to_bytes())
    volume = read_volume(tmp_path / "odd.nii")
    assert "the q form is used instead" in volume.notes[0]
    assert np.allclose(volume.source.affine, moved, atol=1e-3)
    image = nib.Nifti1Image(array, np.diag([1000.0, 1000, 2000, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "micron.nii")
    assert read_volume(tmp_path / "micron.nii").spacing_mm == pytest.approx((2, 1, 1))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_color_and_4d_images_are_refused_with_a_clear_error(ending: str, tmp_path: Path) -> None:
    colors = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(colors, str(tmp_path / f"c{ending}"))
    with pytest.raises(FileFormatError, match="3 values per voxel"):
        read_volume(tmp_path / f"c{ending}")
    series = sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.uint8), isVector=False)
    sitk.WriteImage(series, str(tmp_path / f"t{ending}"))
    with pytest.raises(FileFormatError, match="is 4D"):
        read_volume(tmp_path / f"t{ending}")
    (tmp_path / f"e{ending}").write_bytes(b"")
    with pytest.raises(FileFormatError, match="it is empty"):
        read_volume(tmp_path / f"e{ending}")
    whole = (tmp_path / f"t{ending}").read_bytes()
    (tmp_path / f"cut{ending}").write_bytes(whole[:-40])
    with pytest.raises(FileFormatError):
        read_volume(tmp_path / f"cut{ending}")


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.nrrd", "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 5 6\nencoding: raw\n\n"),
        ("a.mha", "NDims = 3\nDimSize = 4 5 6\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"),
    ],
)
def test_a_file_without_orientation_is_reported(name: str, head: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(head.encode() + bytes(range(120)))
    found = read_volume(tmp_path / name)
    assert "Left and right may be exchanged" in found.notes[0]
    write_mask(np.ones(found.shape, np.uint8), reference=found, path=tmp_path / f"whole_{name}")
    assert not read_volume(tmp_path / f"whole_{name}", check_values=False).notes
