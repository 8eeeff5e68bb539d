"""Which run made a prediction, recorded beside it as ``NAME.json``."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from napari_dycon import __version__
from napari_dycon.core.untrusted import read_json
from napari_dycon.core.wording import format_count
from napari_dycon.errors import UserError
from napari_dycon.project.models import ClassInfo
from napari_dycon.project.runs.metadata import Count, Fraction
from napari_dycon.project.runs.run import Run
from napari_dycon.project.runs.run_facts import RunFacts
from napari_dycon.project.untrusted_model import UntrustedModel

KEY = "origin"  # of the record in the file
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
ShortText = Annotated[str, Field(max_length=200)]
Names = Annotated[dict[ShortText, ShortText], Field(max_length=254)]


class PredictionOrigin(UntrustedModel):
    """Which run made a prediction; fields are ``None`` if they are missing or invalid."""

    run: ShortText | None = Field(default=None, description="Id of the run.")
    step: Count | None = Field(default=None, description="Number of steps of its weights.")
    validation_dice: Fraction | None = Field(
        default=None, description="Mean validation Dice of the networks only."
    )
    weights_sha256: ShortText | None = Field(
        default=None, description="SHA-256 checksum of the weights."
    )
    trained: ShortText | None = Field(
        default=None, description="When the weights were saved, in UTC."
    )
    predicted: ShortText | None = Field(default=None, description="When it was predicted, in UTC.")
    version: ShortText | None = Field(default=None, description="Version of napari-dycon.")
    classes: Names | None = Field(default=None, description="Names of the classes by their values.")

    @property
    def description(self) -> str:
        """The run and its steps, such as "001-dycon (363 steps)"."""
        steps = "" if self.step is None else f" ({format_count(self.step, 'step')})"
        return f"{self.run}{steps}" if self.run else "an unknown run"

    def now(self) -> PredictionOrigin:
        """Return the record of a prediction that is made now."""
        return self.model_copy(update={"predicted": _format_utc(time.time())})


def build_origin(run: Run, facts: RunFacts, classes: Sequence[ClassInfo]) -> PredictionOrigin:
    """Build the record of predictions of a run; the weights are read for their checksum."""
    with run.weights_path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return PredictionOrigin(
        run=run.id,
        step=facts.steps,
        validation_dice=facts.dice,
        weights_sha256=checksum,
        trained=None if facts.trained is None else _format_utc(facts.trained),
        version=__version__,
        classes={str(info.value): info.name for info in classes},
    )


def read_origin(path: Path) -> PredictionOrigin | None:
    """Read the record of a prediction; ``None`` if the file is missing or no such record."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return None
    record = values.get(KEY) if isinstance(values, dict) else None
    return PredictionOrigin.model_validate(record) if isinstance(record, dict) else None


def get_record_path(mask: Path) -> Path:
    """Return the path of the record of a mask ``NAME.nii.gz``: ``NAME.json``."""
    return mask.with_name(f"{mask.name.removesuffix('.nii.gz')}.json")


def check_record_path(mask: Path) -> None:
    """Reject a mask whose record would replace another file.

    Raises
    ------
    UserError
        ``NAME.json`` is not the record of a prediction.
    """
    path = get_record_path(mask)
    if path.exists() and read_origin(path) is None:
        raise UserError(
            f"{path} would be overwritten by the record of a prediction, and is something else. "
            "Choose another output folder."
        )


def count_origins(masks: Iterable[Path]) -> dict[str, int]:
    """Count masks by a description of the run that made them; those without a record are not."""
    origins = (read_origin(get_record_path(mask)) for mask in masks)
    return dict(Counter(origin.description for origin in origins if origin is not None))


def count_replaced(masks: Iterable[Path], origin: PredictionOrigin) -> dict[str, int]:
    """Count existing masks of other weights, by a description of the run that made them."""
    replaced: Counter[str] = Counter()
    for mask in masks:
        if not mask.exists():
            continue
        found = read_origin(get_record_path(mask)) or PredictionOrigin()
        if found.weights_sha256 != origin.weights_sha256:
            replaced[found.description] += 1
    return dict(replaced)


def _format_utc(seconds: float) -> str:
    return time.strftime(TIME_FORMAT, time.gmtime(seconds))
