"""A dataset in a known folder layout: its channels, classes and cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_dycon.errors import UserError


@dataclass(frozen=True)
class LayoutCase:
    """One case of a layout: an optional file per channel, and an optional label."""

    id: str
    images: Sequence[Path | None]
    label: Path | None
    is_test: bool = False  # of the test set of the benchmark


@dataclass(frozen=True)
class Layout:
    """A dataset in a known layout.

    Attributes
    ----------
    value_map : values in label files that are replaced by others
    format_name : name of the layout; empty if it is that of the dataset
    """

    name: str
    channels: tuple[str, ...]
    classes: dict[int, str]
    cases: list[LayoutCase]
    value_map: dict[int, int] = field(default_factory=dict)
    format_name: str = ""

    def select_images(self, case: LayoutCase, channels: Sequence[int]) -> list[Path]:
        """Return the files of a case for some channels; missing ones raise ``UserError``."""
        images = [case.images[n] for n in channels]
        missing = [self.channels[n] for n in channels if case.images[n] is None]
        if missing:
            wanted = ", ".join(self.channels[n] for n in channels)
            raise UserError(
                f"Case {case.id} has no {' and no '.join(missing)} image; expected one file each "
                f"for {wanted}. Complete the case or move it to another folder."
            )
        return [path for path in images if path is not None]
