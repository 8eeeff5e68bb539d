"""Valid and invalid case ids."""

from __future__ import annotations

import pytest

from napari_dycon.project.case_ids import is_case_id, unique_case_id
from napari_dycon.project.models import Case


@pytest.mark.parametrize(
    "bad", ["a\n", "a/../b", "C:x", "a\0", "nul.x", "x" * 151, "a.", "-a", "~"]
)
def test_invalid_case_ids_are_refused(bad: str) -> None:
    assert not is_case_id(bad)


@pytest.mark.parametrize(
    "name",
    ["..", "../../etc/passwd", "con", "a  b", "-x", "", "é ü 患者", "x" * 400, "a (1)", "a\nb"],
)
def test_every_file_name_gives_an_id(name: str) -> None:
    found = unique_case_id(name, set())
    assert is_case_id(found)
    assert unique_case_id(name, {found.lower()}) != found
    assert is_case_id(unique_case_id(name, {found.lower()}))


def test_a_case_id_cannot_be_a_path() -> None:
    with pytest.raises(ValueError, match="expected letters, digits"):
        Case(id="../../x", images=["a.nii"])
