"""Fields that all events share, and the limits of their values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_TEXT_LENGTH = 4000
MAX_NUMBER = 10**12


def _escape_surrogates(value: object) -> object:
    """Escape lone surrogates, as in names of files that are not valid UTF-8."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _shorten(value: object) -> object:
    """Shorten a message to the limit: an event must not be lost because of a long error message."""
    return value[:MAX_TEXT_LENGTH] if isinstance(value, str) else value


AnyText = Annotated[str, BeforeValidator(_escape_surrogates)]
Text = Annotated[AnyText, Field(max_length=MAX_TEXT_LENGTH)]
Message = Annotated[str, BeforeValidator(_shorten), BeforeValidator(_escape_surrogates)]
Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class BaseEvent(BaseModel):
    """Fields and behavior that all events share.

    Fields that are missing in a line have their defaults; keys of newer versions are ignored.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    event: str
    time: Number | None = Field(
        default=None, description="Seconds since the epoch; null in events of a prediction."
    )

    def __getitem__(self, key: str) -> Any:
        """Return a field by its key, so that scripts read events like lines of ``events.jsonl``."""
        if self.model_extra and key in self.model_extra:
            return self.model_extra[key]
        if key not in type(self).model_fields:
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        """Whether this kind of event has a field."""
        return key in type(self).model_fields or key in (self.model_extra or {})

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field by its key, or a default if this kind of event does not have it."""
        try:
            return self[key]
        except KeyError:
            return default
