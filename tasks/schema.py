"""Schemas of what people and programs send, in pydantic: one place for types, limits and the words of their errors.

A schema validates, names the wrong field and describes itself for OpenAPI. The words of an error are made here from
the limits alone, so that a field says the same wherever it is sent.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from tasks.errors import InvalidInput

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
NOT_STORED = re.compile("[\x00\ud800-\udfff]")
SHOWN_KEY = 100  # characters


def storable(text: str) -> str:
    """The text with U+FFFD in place of what not every database stores: NUL and half surrogate pairs."""
    return NOT_STORED.sub("\ufffd", text)


class Schema(BaseModel):
    """A frozen value whose unknown keys are errors that name the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            fields = cls.model_fields
            for key in given:
                if key not in fields:
                    known = [name for name, field in fields.items() if not field.exclude]
                    shown = storable(str(key)[:SHOWN_KEY])
                    near = difflib.get_close_matches(shown, known, 1)
                    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
                    context = {"key": shown, "hint": hint}
                    raise PydanticCustomError("unknown_key", "{key} is not known; {hint}", context)
        elif not isinstance(given, cls):
            raise PydanticCustomError("object", "must be an object with {keys}", {"keys": ", ".join(cls.model_fields)})
        return given


S = TypeVar("S", bound=BaseModel)


def validated(schema: type[S], given: Any, where: str = "") -> S:
    """``given`` as a ``schema``. Raises `InvalidInput` whose ``field`` is the path of the first that is wrong.

    ``where`` is the path of ``given`` itself, such as ``sampling``.
    """
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise invalid(error.errors()[0], where) from None


def invalid(problem: ErrorDetails, where: str = "") -> InvalidInput:
    """What pydantic found, as an error that names the field and says what to send."""
    path = [where, *map(str, problem["loc"])]
    if problem["type"] == "unknown_key":
        path.append(problem["ctx"]["key"])
    field = ".".join(part for part in path if part)
    message = problem["msg"] if problem["type"] != "missing" else "is missing"
    if problem["type"] == "unknown_key":
        return InvalidInput(f"{field} is not known; {problem['ctx']['hint']}", field)
    return InvalidInput(f"{field or 'The body'} {message.rstrip('.')}.", field or None)


@dataclass(frozen=True)
class Range:
    """For ``Annotated``: a number from ``low`` to ``high``, a whole one where ``integer``; 2.0 is one, true is none."""

    low: float
    high: float
    integer: bool = False

    @property
    def words(self) -> str:
        if self.integer:
            return f"must be a whole number from {self.low:.0f} to {self.high:.0f}"
        return f"must be a number from {self.low:g} to {self.high:g}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if self.integer:
            return _saying(self.words, _plain_whole, core_schema.int_schema(ge=int(self.low), le=int(self.high)))
        return _saying(self.words, _plain_number, core_schema.float_schema(ge=self.low, le=self.high))


def whole(low: int, high: int) -> Range:
    """For ``Annotated``: a whole number from ``low`` to ``high``."""
    return Range(low, high, integer=True)


@dataclass(frozen=True)
class Seconds:
    """For ``Annotated``: a number of seconds above 0 and at most ``high``."""

    high: float

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        words = f"must be a number of seconds above 0, at most {self.high:.0f}"
        return _saying(words, _plain_number, core_schema.float_schema(gt=0, le=self.high))


@dataclass(frozen=True)
class Characters:
    """For ``Annotated``: a text of ``least`` to ``most`` characters that every database stores: no NUL, no half one."""

    most: int
    least: int = 0

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        limits = f"of {self.least} to {self.most}" if self.least else f"of at most {self.most}"
        plain = core_schema.str_schema(min_length=self.least, max_length=self.most)
        return _saying(f"must be a text {limits} characters", _plain_text, plain)


@dataclass(frozen=True)
class Said:
    """For ``Annotated``: whatever is wrong with the field, its error reads ``words``."""

    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _saying(self.words, lambda value: value, handler(source))


def one_of(*values: str) -> Said:
    """For ``Annotated`` of an enum or literal with these values."""
    return Said(f"must be {', '.join(values[:-1])} or {values[-1]}")


def _saying(words: str, plain: Callable[[Any], Any], inner: CoreSchema) -> CoreSchema:
    """``inner`` over what ``plain`` makes of a value, with ``words`` for the error of either."""

    def check(value: Any, handler: core_schema.ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(plain(value))
        except PydanticCustomError:
            raise
        except (ValueError, OverflowError):  # pydantic's ValidationError is a ValueError
            raise PydanticCustomError("limits", "{words}", {"words": words}) from None

    return core_schema.no_info_wrap_validator_function(check, inner)


def _plain_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return value


def _plain_whole(value: Any) -> int:
    if _plain_number(value) != int(value):
        raise ValueError(value)
    return int(value)


def _plain_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    if "\x00" in value:
        raise PydanticCustomError("nul", "contains a NUL character; remove it")
    if LONE_SURROGATE.search(value):
        raise PydanticCustomError("surrogate", "has half a surrogate pair, which is no character; send it as UTF-8")
    return value


def flag(value: Any) -> bool:
    """True or false and nothing like them."""
    if not isinstance(value, bool):
        raise PydanticCustomError("flag", "must be true or false")
    return value


Flag = Annotated[bool, BeforeValidator(flag)]


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
            if not isinstance(value, str | Mapping):
                raise PydanticCustomError("text_or", "must be a text, or an object with {field}", {"field": self.field})
            return value if isinstance(value, str) else inner(value)

        return core_schema.no_info_wrap_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        text = {"type": "string", "description": f"The same as an object with nothing but `{self.field}`"}
        return {"anyOf": [text, handler(schema)]}
