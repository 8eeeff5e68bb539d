"""Pydantic models of ``project.json``, with readable validation errors."""

from __future__ import annotations

import enum
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from napari_dycon.core.untrusted import parse_json
from napari_dycon.errors import ProjectError, UserError
from napari_dycon.io.volume import MAX_CHANNELS
from napari_dycon.project.case_ids import is_case_id, normalize_name
from napari_dycon.project.external_images import path_error
from napari_dycon.project.schema_version import check_schema_version

Split = Literal["train", "validation"]
MAX_NAME_LENGTH = 150  # of the name that is shown for a case

# Distinguishable from each other, and with color blindness also from the colors of differences and
# disagreement, for which blue, cyan and yellow are reserved; see ``core.colormaps``. Those similar
# to the uncertainty colormap come last.
PALETTE = ("#408a7c", "#c39298", "#589133", "#9b5760", "#586242", "#9e895c", "#97540e", "#f84400")


class Status(enum.StrEnum):
    """Annotation status of a case, as stored in ``project.json``."""

    UNLABELED = "unlabeled"
    IN_PROGRESS = "in_progress"
    LABELED = "labeled"
    REVIEWED = "reviewed"

    @property
    def display_name(self) -> str:
        """The status as shown in the window and on the command line."""
        return self.value.replace("_", " ")


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassInfo(_StrictModel):
    """A structure to segment; the background is 0 and not listed."""

    value: Annotated[int, Field(ge=1, le=254)]
    name: Annotated[str, Field(min_length=1, max_length=60)]
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class Case(_StrictModel):
    """A scan; ``images`` has one path per channel, relative to the project or absolute.

    A channel of a 4D NIfTI file is specified by its number from 0, as in ``scan.nii.gz#2``. With
    ``resampled``, irregular slices are interpolated whenever the scan is read. ``id`` is the name
    of its files and never changes, since runs, predictions and other sessions refer to it; ``name``
    is the name shown instead, if the user chose one.
    """

    id: str
    images: Annotated[list[str], Field(min_length=1)]
    split: Split = "train"
    status: Status = Status.UNLABELED
    resampled: bool = False
    name: Annotated[str, Field(max_length=MAX_NAME_LENGTH)] = ""

    @property
    def display_name(self) -> str:
        """Name shown to the user."""
        return self.name or self.id

    @model_serializer(mode="wrap")
    def _leave_out_empty_name(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the name if there is none, as earlier versions do not know it."""
        values: dict[str, Any] = serialize(self)
        if not self.name:
            values.pop("name", None)
        return values

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str) -> str:
        if not is_case_id(value):
            raise ValueError("expected letters, digits, '-', '_', '.', '+' and spaces only")
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise ValueError("expected printable characters, without spaces at the ends")
        return value

    @field_validator("images")
    @classmethod
    def _check_images(cls, values: list[str]) -> list[str]:
        for value in values:
            if (error := path_error(value)) is not None:
                raise ValueError(error)
        return values


class ProjectManifest(_StrictModel):
    """Content of ``project.json``."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=200)]
    classes: Annotated[list[ClassInfo], Field(min_length=1, max_length=254)]
    channels: Annotated[list[str], Field(min_length=1, max_length=MAX_CHANNELS)]
    cases: list[Case] = []

    @functools.cached_property
    def cases_by_id(self) -> dict[str, Case]:
        """Cases by their ids."""
        return {case.id: case for case in self.cases}

    @model_validator(mode="after")
    def _check_consistency(self) -> ProjectManifest:
        _check_unique("case id", [normalize_name(case.id) for case in self.cases])
        _check_unique("class value", [str(c.value) for c in self.classes])
        _check_unique("class name", [normalize_name(c.name) for c in self.classes])
        for case in self.cases:
            if len(case.images) != len(self.channels):
                raise ValueError(
                    f"case {case.id} has {len(case.images)} image(s), but the project has "
                    f"{len(self.channels)} channel(s)"
                )
        return self


def _check_unique(kind: str, values: list[str]) -> None:
    if len(set(values)) < len(values):
        duplicates = sorted(value for value, count in Counter(values).items() if count > 1)
        raise ValueError(f"every {kind} must be unique, found twice: {', '.join(duplicates[:3])}")


def parse_manifest(text: str, path: Path) -> ProjectManifest:
    """Parse a ``project.json``; errors name the field, the value found and the expected one."""
    try:
        values: Any = parse_json(text)
    except ValueError as error:
        raise ProjectError(
            f"{path} is not valid JSON ({error}). Restore a backup, or create a new project."
        ) from None
    if not isinstance(values, dict):
        raise ProjectError(f"{path} is not a project; expected a JSON object.")
    check_schema_version(values, path)
    return validate_manifest(values, path)


def validate_manifest(
    values: dict[str, Any], path: Path, advice: str = "Edit the file or restore a backup."
) -> ProjectManifest:
    """Validate values; the first problem becomes a one-line error with the advice."""
    try:
        return ProjectManifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"]) or "project"
        value_text = _format_value(first.get("input"))
        value_text = (
            f" (found {value_text})" if first["loc"] else ""
        )  # the whole file would not be informative
        message = first["msg"].removeprefix("Value error, ")
        raise ProjectError(
            f"{path}: {location} is invalid: {message}{value_text}. {advice}"
        ) from None


def _format_value(value: object) -> str:
    """Format a value for a message, in limited length."""
    if isinstance(value, (list, dict)) and len(value) > 20:
        return f"{len(value)} items"
    if isinstance(value, str) and len(value) > 80:
        value = value[:80] + "..."
    text = repr(value)
    return text if len(text) < 90 else text[:87] + "..."


def classes_from_names(names: Sequence[str]) -> list[ClassInfo]:
    """Build classes 1, 2, ... with the given names and default colors."""
    try:
        return [
            ClassInfo(value=i, name=name.strip(), color=get_palette_color(i - 1))
            for i, name in enumerate(names, start=1)
        ]
    except ValueError:
        raise UserError(
            f"These class names cannot be used: {', '.join(map(repr, names))}. Expected 1 to 254 "
            "names of 1 to 60 characters, such as --classes anterior,posterior."
        ) from None


def get_palette_color(index: int) -> str:
    """Return the default color of the class with an index."""
    return PALETTE[index % len(PALETTE)]
