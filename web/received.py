"""What a request carries, as values of its schema."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from flask import request
from pydantic import BaseModel
from werkzeug.exceptions import BadRequest

from tasks.errors import InvalidInput
from tasks.schema import LONE_SURROGATE, validated

S = TypeVar("S", bound=BaseModel)
EXAMPLE = '{"prompts": ["写一首关于春天的诗"]}'
SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class UnsupportedType(InvalidInput):
    """A body that is not JSON; a page of another site cannot send JSON unasked, so this also keeps those out."""

    status = 415
    code = "unsupported_media_type"


def body(schema: type[S], required: bool = True, example: str = EXAMPLE) -> S:
    """The JSON object that was sent; one that is not ``required`` may be left out, its content type may not.

    Errors show the ``example`` to whoever sent none.

    Raises `InvalidInput` that names the wrong field, `UnsupportedType`, and `BadRequest` for what is no JSON.
    """
    return validated(schema, _json_object(required, example))


def query(schema: type[S]) -> S:
    """The parameters after the path's question mark. Raises `InvalidInput` that names the wrong one."""
    lists = {name for name, field in schema.model_fields.items() if _takes_list(field.annotation)}
    given = {key: values if key in lists else values[-1] for key, values in request.args.lists()}
    return validated(schema, given)


def _takes_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_takes_list(inner) for inner in get_args(annotation))


def _json_object(required: bool, example: str) -> Mapping[str, Any]:
    if not request.is_json:
        raise UnsupportedType("Send JSON, with the header Content-Type: application/json.")
    try:
        found = request.get_json() if required or request.content_length else {}
    except BadRequest:
        raise BadRequest(f"The body is not valid JSON; send an object such as {example}, in UTF-8.") from None
    except RecursionError:
        raise InvalidInput("The body is nested too deeply; send one flat JSON object.") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"The body must be a JSON object such as {example}.")
    if SURROGATE_ESCAPE.search(request.get_data()):
        _refuse_half_characters(found)
    return found


def _refuse_half_characters(found: Any) -> None:
    """Raise `InvalidInput` for the first text or key that has half a surrogate pair, however deep it is."""
    open_values: list[tuple[str, Any]] = [("", found)]
    while open_values:
        field, value = open_values.pop()
        if isinstance(value, str) and LONE_SURROGATE.search(value):
            problem = "has half a surrogate pair, which is no character; send it as UTF-8."
            raise InvalidInput(f"{field} {problem}", field)
        if isinstance(value, dict):
            for key in value:
                if LONE_SURROGATE.search(key):
                    raise InvalidInput(f"{field or 'The body'} has a key with half a surrogate pair.", field or None)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        open_values += [(f"{field}.{key}".strip("."), item) for key, item in reversed(list(inner))]
