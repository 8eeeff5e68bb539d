"""Records of predictions come from any folder and are read within limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_dycon.errors import UserError
from napari_dycon.project.prediction_origin import (
    PredictionOrigin,
    check_record_path,
    count_origins,
    count_replaced,
    read_origin,
)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "5", '{"origin": []}', '{"other": {}}', '{"a": ' * 3000 + "1" + "}" * 3000],
)
def test_other_files_are_no_records(text: str, tmp_path: Path) -> None:
    mask = tmp_path / "a.nii.gz"
    mask.touch()
    (tmp_path / "a.json").write_text(text)
    assert read_origin(tmp_path / "a.json") is None
    assert count_origins([mask]) == {}
    with pytest.raises(UserError, match=r"a\.json would be overwritten"):
        check_record_path(mask)


def test_invalid_fields_count_as_missing(tmp_path: Path) -> None:
    values = {"run": "a" * 500, "step": -1, "classes": {"1": 5}, "validation_dice": 7, "new": 1}
    (tmp_path / "a.json").write_text(json.dumps({"origin": values}))
    assert read_origin(tmp_path / "a.json") == PredictionOrigin()
    (tmp_path / "a.json").write_text('{"origin": {"run": "\\ud800", "step": 3}}')
    assert read_origin(tmp_path / "a.json") == PredictionOrigin(step=3)


def test_masks_without_a_record_are_of_an_unknown_run(tmp_path: Path) -> None:
    masks = [tmp_path / f"{name}.nii.gz" for name in "abc"]
    for mask in masks[:2]:
        mask.touch()
    (tmp_path / "b.json").write_text('{"origin": {"run": "001-dycon", "weights_sha256": "x"}}')
    origin = PredictionOrigin(run="001-dycon", weights_sha256="y")
    assert count_replaced(masks, origin) == {"an unknown run": 1, "001-dycon": 1}
    same = PredictionOrigin(run="001-dycon", weights_sha256="x")
    assert count_replaced(masks, same) == {"an unknown run": 1}
    check_record_path(masks[0])
