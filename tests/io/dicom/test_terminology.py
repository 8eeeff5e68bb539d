"""Coded terms exist in the DICOM dictionary, and the right one is proposed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode

from napari_dycon.io.dicom.terminology import list_codes, search, suggest

# pydicom's context groups of segmented properties, by the category they belong to.
GROUPS = {
    "Anatomical Structure": codes.cid7192,
    "Tissue": codes.cid7191,
    "Morphologically Abnormal Structure": codes.cid7194,
}
# Real structures and so coded, though no context group of segmentation lists them.
BEYOND_THE_GROUPS = {"Anatomical Structure", "optic nerve", "Left Ventricle Myocardium", "Tibia"}


def test_every_term_is_in_the_dictionary_with_its_value_and_meaning() -> None:
    assert len(list_codes()) >= 48
    known = {
        (code.scheme_designator, code.value, code.meaning)
        for scheme in ("SCT", "NCIt")
        for code in (getattr(getattr(codes, scheme), name) for name in dir(getattr(codes, scheme)))
        if isinstance(code, DicomCode)
    }
    assert len(known) > 5000
    for code in list_codes():
        assert (code.scheme, code.value, code.meaning) in known
        assert (code.category_scheme, code.category_value, code.category_meaning) in known
        assert len(code.meaning) <= 64
        assert len(code.value) <= 16


def test_every_term_has_its_category() -> None:
    outside = set()
    for code in list_codes():
        members = {
            getattr(GROUPS[code.category_meaning], n) for n in GROUPS[code.category_meaning].dir()
        }
        if DicomCode(code.value, code.scheme, code.meaning) not in members:
            outside.add(code.meaning)
    assert outside == BEYOND_THE_GROUPS


def test_terms_and_names_are_unique() -> None:
    assert len({(c.scheme, c.value) for c in list_codes()}) == len(list_codes())
    names = [name.casefold() for code in list_codes() for name in (code.meaning, *code.synonyms)]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("left atrium", "Left atrium"),
        ("ATRIUM left", "Left atrium"),
        ("hippo", "Hippocampus"),
        ("lung", "Lung"),
        ("liver", "Liver"),
        ("oedema", "Edema"),
        ("metastases", "Neoplasm, Secondary"),
        ("tumour", "Neoplasm"),
        ("matter white cereb", "Cerebral White Matter"),
    ],
)
def test_search_ranks_the_best_match_first(text: str, first: str) -> None:
    assert search(text)[0].meaning == first


def test_search_finds_a_code() -> None:
    assert [code.meaning for code in search(" 10200004 ")] == ["Liver"]


def test_search_matches_every_word() -> None:
    assert search("") == list(list_codes())
    assert search("left banana") == []
    assert {code.meaning for code in search("ventricle")} >= {"Left ventricle", "Right ventricle"}


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("left atrium", "Left atrium"),
        ("Left_Atrium", "Left atrium"),
        ("anterior hippocampus", "Hippocampus"),
        ("posterior", "Tissue"),
        ("pancreas", "Pancreas"),
        ("lesion", "Lesion"),
        ("MS lesion", "Lesion of Brain"),
        ("white-matter lesions", "Lesion of Brain"),
        ("ischemic stroke", "Lesion of Brain"),
        ("myocardial infarct", "Lesion"),
        ("liver tumour", "Neoplasm"),
        ("non-enhancing tumor core", "Non-Enhancing Lesion"),
        ("enhancing tumor", "Enhancing Lesion"),
        ("necrotic core", "Necrosis"),
        ("peritumoral edema", "Edema"),
        ("lung nodule", "Nodule"),
        ("kidneys", "Kidney"),
        ("left kidney", "Kidney"),
        ("renal artery", "Artery"),
        ("LV myocardium", "Left Ventricle Myocardium"),
        ("vertebrae", "Vertebra"),
        ("urinary bladder", "Bladder"),
        ("box", "Tissue"),
        ("", "Tissue"),
    ],
)
def test_suggested_terms_match_the_class_name(name: str, meaning: str) -> None:
    assert suggest(name).meaning == meaning


def test_terminology_imports_without_the_dicom_packages() -> None:
    """The engine's machine may lack them; nibabel imports pydicom by itself where it is there."""
    code = """
import sys
sys.modules["highdicom"] = sys.modules["pydicom"] = None
import numpy as np
import napari_dycon.io
from napari_dycon.errors import UserError
from napari_dycon.io.dicom import terminology
from napari_dycon.io.dicom.segmentation import write_parametric_map
from napari_dycon.io.volume import Source, Volume
assert terminology.suggest("pancreas").meaning == "Pancreas"
scan = Volume(np.zeros((2, 2, 2)), np.eye(4), Source(None, (2, 2, 2), np.eye(4)))
try:
    write_parametric_map(scan.array, scan, "map.dcm", name="uncertainty")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install highdicom" in done.stdout


def test_the_dicom_packages_are_loaded_only_when_needed() -> None:
    code = (
        "import sys, napari_dycon.io, napari_dycon.io.dicom.terminology as t;"
        "import napari_dycon.io.dicom.segmentation; t.suggest('liver');"
        "print('highdicom' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
