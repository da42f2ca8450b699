"""Kinds of values that requests share: numbers that come as text, the checks of a prompt, a text or an object."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{0,20})?([eE][+-]?\d{1,3})?", re.ASCII)
MAX_CHECK_CHARACTERS = 8000
MAX_CHECK_DEPTH = 8


def number_of(text: Any) -> Any:
    """The number that a form or an address has as text; anything else as it is, for a schema to refuse."""
    if not isinstance(text, str) or not NUMBER.fullmatch(text.strip()):
        return text
    value = float(text)
    return int(text) if text.strip().lstrip("+-").isdecimal() else value


FromText = BeforeValidator(number_of)


def check_of(value: Any) -> dict[str, Any]:
    """One check of a prompt: an object with a text ``type`` and whatever that type needs. It is stored as it is."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or not 1 <= len(kind) <= 100:
        raise PydanticCustomError("check", 'must be an object with a "type" of 1 to 100 characters')
    problem = _unstorable(value, MAX_CHECK_DEPTH)
    if not problem and len(json.dumps(value, ensure_ascii=False)) > MAX_CHECK_CHARACTERS:
        problem = f"is too large; its JSON may have {MAX_CHECK_CHARACTERS} characters"
    if problem:
        raise PydanticCustomError("check", "{problem}", {"problem": problem})
    return dict(value)


def _unstorable(value: Any, depth: int) -> str | None:
    """What keeps a JSON value from being stored by every database."""
    if isinstance(value, str):
        return "has a NUL character; remove it" if "\x00" in value else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "has a number that is not finite; JSON has none"
    if not isinstance(value, Mapping | list):
        return None
    if not depth:
        return f"is nested too deeply; {MAX_CHECK_DEPTH} levels are the limit"
    inner = [*value, *value.values()] if isinstance(value, Mapping) else value
    return next((problem for item in inner if (problem := _unstorable(item, depth - 1))), None)


@dataclass(frozen=True)
class Many:
    """For ``Annotated`` of a list or a dict: of ``least`` to ``most`` values, called ``what`` in its error.

    Only the first value that is wrong is told: a list may have a million.
    """

    what: str
    most: int
    least: int = 0

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        limits = f"{self.least} to {self.most}" if self.least else f"at most {self.most}"
        inner: dict[str, Any] = {**handler(source), "max_length": self.most, "min_length": self.least}
        kind, name = (list, "a list") if inner["type"] == "list" else (dict, "an object")
        if kind is list:
            inner["fail_fast"] = True
        words = {"words": f"must be {name} of {limits} {self.what}"}

        def check(value: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> Any:
            if not isinstance(value, kind) or not self.least <= len(value) <= self.most:
                raise PydanticCustomError("limits", "{words}", words)
            return validate(value)

        return core_schema.no_info_wrap_validator_function(check, cast(CoreSchema, inner))


@dataclass(frozen=True)
class TextOr:
    """For ``Annotated`` of an object: a text stands for the object whose field ``field`` it is.

    Errors then name the text itself, and a list of a million texts costs no object each.
    """

    field: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any, inner: core_schema.ValidatorFunctionWrapHandler) -> Any:
            return value if isinstance(value, str) else inner(value)

        return core_schema.no_info_wrap_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        text = {"type": "string", "description": f"The same as an object with nothing but `{self.field}`"}
        return {"anyOf": [text, handler(schema)]}
