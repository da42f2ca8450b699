"""Errors in OpenAI's form, from which its clients make exceptions."""

from typing import Any

from flask import request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from tasks.errors import InvalidInput, TouchstoneError
from web.openai.blueprint import PREFIX

PIECE_BYTES = 2**16
MOST_DRAINED = 2 * 2**30


class Busy(TouchstoneError):
    """As many answers as there are places for are being waited for."""

    code = "rate_limit_exceeded"
    status = 429


class AnswerFailed(TouchstoneError):
    """The model gave no answer, or nobody can ask it now; ``code`` says why."""

    def __init__(self, message: str, code: str, status: int = 500):
        super().__init__(message)
        self.code, self.status = code, status


def is_asked() -> bool:
    """Whether the request is one of OpenAI's interface, be it to an address that does not exist."""
    return request.path.startswith(f"{PREFIX}/")


def shown(error: TouchstoneError | HTTPException) -> ResponseReturnValue:
    """The answer to a request that failed."""
    status = _status(error)
    if status == 413:
        _drain()
    headers = {"Retry-After": "1"} if status == 429 else {}
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.valid_methods or ())
    return {"error": error_object(error)}, status, headers


def error_object(error: TouchstoneError | HTTPException) -> dict[str, Any]:
    """What is wrong, as the value of ``error``."""
    if isinstance(error, TouchstoneError):
        code, message, param = error.code, error.message, error.field
    else:
        code, message, param = error.name.lower().replace(" ", "_"), error.description or error.name, None
    return {"message": message, "type": _type(_status(error)), "param": param, "code": code}


def _status(error: TouchstoneError | HTTPException) -> int:
    if isinstance(error, TouchstoneError):
        return 400 if type(error).status == InvalidInput.status else error.status
    return error.code or 500


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _drain() -> None:
    """A client that is still sending would never read the answer to its mistake."""
    stream, left = request.environ["wsgi.input"], MOST_DRAINED
    while left > 0 and (piece := stream.read(PIECE_BYTES)):
        left -= len(piece)
