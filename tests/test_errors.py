"""Errors that carry more than a message."""

from __future__ import annotations

import pickle

from napari_dycon.errors import IrregularSlicesError


def test_irregular_slice_errors_separate_problem_and_advice() -> None:
    error = IrregularSlicesError("The series lacks 1 slice", "Expected all. Get them.")
    copy = pickle.loads(pickle.dumps(error))
    for same in (error, copy):
        assert str(same) == "The series lacks 1 slice. Expected all. Get them."
        assert (same.finding, same.advice) == (
            "The series lacks 1 slice",
            "Expected all. Get them.",
        )
