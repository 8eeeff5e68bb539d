"""Errors that carry more than a message."""

from __future__ import annotations

import pickle

from napari_dycon.errors import IrregularSlicesError


def test_irregular_slices_tell_what_was_found_apart_from_what_to_do() -> None:
    error = IrregularSlicesError("The series lacks 1 slice", "Expected all. Get them.")
    copy = pickle.loads(pickle.dumps(error))
    for same in (error, copy):
        assert str(same) == "The series lacks 1 slice. Expected all. Get them."
        assert (same.finding, same.advice) == (
            "The series lacks 1 slice",
            "Expected all. Get them.",
        )
