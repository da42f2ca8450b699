"""The OpenAPI document of the API, made from its schemas."""

import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tasks.version import VERSION
from web.schema.answers import Error
from web.schema.operations import DOWNLOAD, EVENTS, FILE, KEY, OPERATIONS, STREAM, Operation
from web.schema.requests import Nothing

TEXT = {"type": "string"}
HEADERS = {KEY: TEXT | {"minLength": 1, "maxLength": 128}, "Last-Event-ID": TEXT}
REFERENCE = "#/components/schemas/{model}"
ERRORS = {
    400: "Not JSON at all",
    404: "Not there",
    405: "Not a method of this path; `Allow` names those that are",
    409: "Contradicts what is there",
    413: "Too large",
    415: "Not the type of content that is taken",
    422: "Not what is taken; `field` says where",
    503: "Try again later; `Retry-After` says when",
}


def document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    taken = {(operation.body, "validation") for operation in OPERATIONS if operation.body}
    given = {(operation.answer, "serialization") for operation in OPERATIONS if operation.answer}
    given |= {(schema, "serialization") for schema in EVENTS.values()} | {(Error, "serialization")}
    models: Any = sorted([*taken, *given], key=lambda pair: str(pair[0]))
    _, schemas = models_json_schema(models, ref_template=REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Touchstone", "version": VERSION, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _described(operation: Operation) -> dict[str, Any]:
    parameters = [
        *({"name": name, "in": "path", "required": True, "schema": TEXT} for name in _names(operation.path)),
        *({"name": name, "in": "header", "schema": HEADERS[name]} for name in operation.headers),
        *(_query(operation.query) if operation.query else ()),
    ]
    errors = {str(status): _answer(ERRORS[status], Error) for status in (*operation.errors, 405)}
    errors["405"]["headers"] = {"Allow": {"schema": TEXT}}
    errors["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    success = _answer("Stored" if operation.status == 202 else "As asked", operation.answer)
    if operation.media == DOWNLOAD:
        success = {"description": "A file; `Content-Disposition` names it", "content": {DOWNLOAD: {}}}
    if operation.media == STREAM:
        told = "; ".join(f"`{name}` with the data {schema.__name__}" for name, schema in EVENTS.items())
        success = {"description": f"Events: {told}", "content": {STREAM: {"schema": TEXT}}}
    made: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {str(operation.status): success} | dict(sorted(errors.items())),
    }
    if operation.file:
        made["requestBody"] = {"required": True, "content": {FILE: {}}}
    elif operation.body:
        schema = {"schema": _reference(operation.body)}
        required = operation.body is not Nothing
        made["requestBody"] = {"required": required, "content": {"application/json": schema}}
        if not required:
            made["description"] = "Send the header Content-Type: application/json, with an empty object or no body."
    return made


def _answer(description: str, schema: type[BaseModel] | None) -> dict[str, Any]:
    content = {"content": {"application/json": {"schema": _reference(schema)}}} if schema else {}
    return {"description": description, **content}


def _reference(schema: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=schema.__name__)}


def _query(schema: type[BaseModel]) -> list[dict[str, Any]]:
    made = schema.model_json_schema()
    required, parts = made.get("required", ()), made.get("$defs", {})
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _whole(value, parts)}
        for name, value in made["properties"].items()
    ]


def _whole(value: Any, parts: dict[str, Any]) -> Any:
    """A schema with what it refers to in its place."""
    if isinstance(value, list):
        return [_whole(item, parts) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _whole(parts[value["$ref"].rpartition("/")[2]], parts)
    return {key: _whole(item, parts) for key, item in value.items()}


def _names(path: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", path)


DOCUMENT = document()
