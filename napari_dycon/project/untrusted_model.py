"""Base of models for files that can come from anywhere and must not keep a project from opening."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)


class UntrustedModel(BaseModel):
    """A model whose invalid fields count as missing: they have their defaults."""

    model_config = ConfigDict(frozen=True, strict=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _replace_invalid(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        try:
            return handler(value)
        except ValidationError:
            return cls.model_fields[str(info.field_name)].get_default(call_default_factory=True)
