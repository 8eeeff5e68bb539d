"""Counts of a project's cases by their use, in the words that window and command line share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from napari_dycon.project.models import Case, Status


@dataclass(frozen=True)
class CaseCounts:
    """Every case is counted once.

    Attributes
    ----------
    labeled : labeled or reviewed, for training
    validation : annotated at least in part, for validation only
    in_progress : annotated in part, for training
    unlabeled : without annotation
    """

    labeled: int = 0
    validation: int = 0
    in_progress: int = 0
    unlabeled: int = 0

    @property
    def total(self) -> int:
        """Number of all cases."""
        return self.labeled + self.validation + self.in_progress + self.unlabeled

    def describe_labeled(self) -> str:
        """Describe the labeled cases, with those for validation: "3 of 8 labeled"."""
        return f"{self.labeled + self.validation} of {self.total} labeled"

    def describe(self) -> str:
        """Describe the counts: "3 labeled for training, 1 for validation, 6 unlabeled"."""
        labeled = "labeled for training" if self.validation else "labeled"
        counts = (
            (self.labeled, labeled),
            (self.validation, "for validation"),
            (self.in_progress, "in progress"),
            (self.unlabeled, "unlabeled"),
        )
        return ", ".join(f"{n} {word}" for n, word in counts if n or word == labeled)


def count_cases(cases: Iterable[Case]) -> CaseCounts:
    """Count cases by their use."""
    labeled = validation = in_progress = unlabeled = 0
    for case in cases:
        if case.status is Status.UNLABELED:
            unlabeled += 1
        elif case.split == "validation":
            validation += 1
        elif case.status is Status.IN_PROGRESS:
            in_progress += 1
        else:
            labeled += 1
    return CaseCounts(labeled, validation, in_progress, unlabeled)
