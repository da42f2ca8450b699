"""The OpenAPI document of the API."""

from typing import Any

from tasks.conversation import MAX_PROMPTS
from tasks.sampling import BOUNDS, MAX_STOPS
from tasks.service import MAX_DEADLINE, MAX_PRIORITY, MAX_SAMPLES
from tasks.states import FinishReason, RunAction, RunKind, RunState
from tasks.version import VERSION


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"content": {"application/json": {"schema": schema}}} if schema else {}
    return {"description": description, **content}


def _operation(summary: str, answers: dict[str, Any], *parameters: dict[str, Any], body: Any = None) -> dict[str, Any]:
    errors = {code: _answer(text, _ref("Error")) for code, text in ERRORS.items()}
    operation = {"summary": summary, "responses": answers | errors, "parameters": list(parameters)}
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


ERRORS = {"404": "Not there", "409": "Contradiction", "415": "Not JSON", "422": "Invalid input", "503": "Try again"}
WHOLE, TEXT = {"type": "integer"}, {"type": "string"}
PRIORITY = WHOLE | {"minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY}
DEADLINE = {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MAX_DEADLINE}
ACTIONS = {
    RunAction.PAUSE: "Start nothing more of a run; what has begun is done to its end",
    RunAction.RESUME: "Let a paused run go on",
    RunAction.CANCEL: "End a run; partial text is kept",
    RunAction.RETRY: "Do again what failed of a run",
}
RUN_ID = _parameter("id", "path", TEXT)
SAMPLING = {
    name: {"type": "integer" if b.integer else "number", "minimum": b.low, "maximum": b.high}
    for name, b in BOUNDS.items()
} | {"stop": {"type": "array", "items": TEXT, "maxItems": MAX_STOPS}}
COUNTS = dict.fromkeys(("total", "done", "failed", "cancelled", "pending"), WHOLE)
OBJECT = {"type": "object"}

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Touchstone", "version": VERSION, "license": {"name": "MIT", "identifier": "MIT"}},
    "paths": {
        "/api/runs": {
            "post": _operation(
                "Put prompts to models",
                {"202": _answer("Stored; the models begin", _ref("Submitted"))},
                _parameter("Idempotency-Key", "header", {"type": "string", "minLength": 1, "maxLength": 128}),
                body=_ref("NewRun"),
            )
        },
        "/api/runs/file": {
            "post": _operation(
                "Put the prompts of a text file to models: one a line, or blocks between lines of ---",
                {"202": _answer("Stored; the models begin", _ref("Submitted"))},
                _parameter("Idempotency-Key", "header", {"type": "string", "minLength": 1, "maxLength": 128}),
                _parameter("name", "query", TEXT),
                _parameter("models", "query", {"type": "array", "items": TEXT}),
                _parameter("samples", "query", {"type": "integer", "minimum": 1, "maximum": MAX_SAMPLES}),
            )
            | {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
        },
        "/api/runs/{id}": {
            "get": _operation("State and counts", {"200": _answer("The run", _ref("Run"))}, RUN_ID),
            "delete": _operation("Delete a run with all its rows", {"204": _answer("It is gone")}, RUN_ID),
        },
        "/api/runs/{id}/completions": {
            "get": _operation(
                "Completions with their phases",
                {"200": _answer("A page of completions", _ref("Completions"))},
                RUN_ID,
                _parameter("model", "query", TEXT),
                _parameter("after", "query", TEXT),
                _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000}),
            )
        },
        "/api/runs/{id}/events": {
            "get": _operation(
                "Server-Sent Events: delta, completion, state, end",
                {"200": {"description": "The stream", "content": {"text/event-stream": {}}}},
                RUN_ID,
                _parameter("Last-Event-ID", "header", TEXT),
            )
        },
        **{
            f"/api/runs/{{id}}/{action}": {"post": _operation(text, {"200": _answer("The run", _ref("Run"))}, RUN_ID)}
            for action, text in ACTIONS.items()
        },
        "/api/runs/{id}/priority": {
            "post": _operation(
                "Let a run go before (above 0) or after others of its kind",
                {"200": _answer("The run", _ref("Run"))},
                RUN_ID,
                body={"type": "object", "properties": {"priority": PRIORITY}, "required": ["priority"]},
            )
        },
        "/api/models": {"get": _operation("The registry", {"200": _answer("Models", OBJECT)})},
        "/api/workers": {"get": _operation("Worker processes", {"200": _answer("Workers", OBJECT)})},
        "/healthz": {"get": _operation("Is the process up", {"200": _answer("It is")})},
        "/readyz": {"get": _operation("Are ledger and Redis there", {"200": _answer("They are")})},
    },
    "components": {
        "schemas": {
            "NewRun": {
                "type": "object",
                "required": ["prompts"],
                "additionalProperties": False,
                "properties": {
                    "prompts": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": MAX_PROMPTS},
                    "models": {"type": "array", "items": TEXT},
                    "sampling": {"type": "object", "properties": SAMPLING, "additionalProperties": False},
                    "samples": {"type": "integer", "minimum": 1, "maximum": MAX_SAMPLES},
                    "kind": {"enum": list(RunKind)},
                    "deadline": DEADLINE,
                },
            },
            "Submitted": {"type": "object", "properties": {"id": TEXT, "url": TEXT}, "required": ["id", "url"]},
            "Counts": {"type": "object", "properties": COUNTS, "required": list(COUNTS)},
            "Run": {
                "type": "object",
                "properties": {
                    "id": TEXT,
                    "state": {"enum": [state for state in RunState if state is not RunState.DELETED]},
                    "priority": PRIORITY,
                    "deadline": DEADLINE,
                    "counts": _ref("Counts"),
                    "models": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"name": TEXT, "counts": _ref("Counts")}},
                    },
                },
                "required": ["id", "state", "counts", "models"],
            },
            "Completion": {
                "type": "object",
                "properties": {"text": TEXT, "finish_reason": {"enum": list(FinishReason)}},
            },
            "Completions": {
                "type": "object",
                "properties": {
                    "completions": {"type": "array", "items": _ref("Completion")},
                    "next": {"type": ["string", "null"], "description": "Give it as `after` for the following page"},
                },
            },
            "Error": {
                "type": "object",
                "properties": {
                    "error": {
                        "type": "object",
                        "properties": {"code": TEXT, "message": TEXT, "field": TEXT},
                        "required": ["code", "message"],
                    }
                },
                "required": ["error"],
            },
        }
    },
}
