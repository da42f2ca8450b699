"""The JSON API under /api."""

import io
import re
from collections.abc import Mapping
from typing import Any, cast

from flask import Blueprint, Response, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput
from tasks.files.read.text import read_text
from tasks.ledger.completions import Place, place_of
from tasks.ledger.records import Run
from tasks.service import MAX_SAMPLES
from tasks.states import RunAction, RunKind
from web import events, views
from web.host import service
from web.openapi import DOCUMENT

OWNER = "api"
KEYS = {"prompts", "models", "sampling", "samples", "kind", "deadline"}
MAX_PAGE = 1000
MAX_DIGITS = 12
DRAINED_BYTES = 2**16
PLACE = re.compile(r"(\d{1,9})\.(\d{1,9})\.(.+)")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

blueprint = Blueprint("api", __name__, url_prefix="/api")


class UnsupportedType(InvalidInput):
    """A body that is not JSON; a page of another site cannot send JSON unasked, so this also keeps those out."""

    status = 415
    code = "unsupported_media_type"


@blueprint.post("/runs")
def submit() -> ResponseReturnValue:
    body = _json_object(required=True)
    for key in body.keys() - KEYS:
        raise InvalidInput(f"{key!r} is not known; a run takes {', '.join(sorted(KEYS))}.", key)
    run, _ = service().submit(
        prompts=_prompts(body.get("prompts")),
        models=_names(body.get("models")),
        sampling=body.get("sampling", {}),
        samples=body.get("samples", 1),
        deadline=body.get("deadline"),
        kind=_kind(body.get("kind")),
        owner=OWNER,
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    return _accepted(run)


@blueprint.post("/runs/file")
def submit_file() -> ResponseReturnValue:
    """A text file as the body, read as it comes in."""
    if request.mimetype != "application/octet-stream":
        raise UnsupportedType("Send the file as it is, with the header Content-Type: application/octet-stream.")
    name = request.args.get("name", "The file")
    try:
        run, _ = service().submit(
            prompts=read_text(io.BufferedReader(cast(io.RawIOBase, request.stream)), name),
            models=request.args.getlist("models"),
            sampling={},
            samples=_whole("samples", 1, 1, MAX_SAMPLES),
            kind=RunKind.BULK,
            owner=OWNER,
            idempotency_key=request.headers.get("Idempotency-Key"),
            title=name,
        )
    finally:
        # A client that is still sending would never read the answer to its mistake.
        while request.stream.read(DRAINED_BYTES):
            pass
    return _accepted(run)


@blueprint.get("/runs/<run_id>")
def show(run_id: str) -> ResponseReturnValue:
    return _describe(service().ledger.runs.get(run_id))


@blueprint.get("/runs/<run_id>/completions")
def completions(run_id: str) -> ResponseReturnValue:
    ledger = service().ledger
    ledger.runs.get(run_id)
    limit = _whole("limit", 100, 1, MAX_PAGE)
    rows = ledger.completions.page(run_id, request.args.get("model"), _place(request.args.get("after")), limit)
    last = place_of(rows[-1]) if len(rows) == limit else None
    following = f"{last.idx}.{last.sample}.{last.model}" if last else None
    return {"completions": [views.completion(row) for row in rows], "next": following}


@blueprint.get("/runs/<run_id>/events")
def stream(run_id: str) -> ResponseReturnValue:
    run = service().ledger.runs.get(run_id)
    return Response(
        events.stream(service(), run, request.headers.get("Last-Event-ID", "0")),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@blueprint.post("/runs/<run_id>/pause", defaults={"action": RunAction.PAUSE})
@blueprint.post("/runs/<run_id>/resume", defaults={"action": RunAction.RESUME})
@blueprint.post("/runs/<run_id>/cancel", defaults={"action": RunAction.CANCEL})
@blueprint.post("/runs/<run_id>/retry", defaults={"action": RunAction.RETRY})
def act(run_id: str, action: RunAction) -> ResponseReturnValue:
    _json_object(required=False)
    return _describe(service().act(run_id, action))


@blueprint.post("/runs/<run_id>/priority")
def prioritise(run_id: str) -> ResponseReturnValue:
    return _describe(service().prioritise(run_id, _json_object(required=True).get("priority", "")))


@blueprint.delete("/runs/<run_id>")
def delete(run_id: str) -> ResponseReturnValue:
    service().delete(run_id)
    return "", 204


@blueprint.get("/models")
def models() -> ResponseReturnValue:
    return {"models": views.models(service())}


@blueprint.get("/workers")
def workers() -> ResponseReturnValue:
    return {"workers": [views.worker(row) for row in service().ledger.workers.all()]}


@blueprint.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    return DOCUMENT


def _accepted(run: Run) -> ResponseReturnValue:
    url = url_for("run.show", run_id=run.id)
    return {"id": run.id, "url": url}, 202, {"Location": url_for("api.show", run_id=run.id)}


def _describe(run: Run) -> dict[str, Any]:
    names = [{"name": name, "counts": counts.to_dict()} for name, counts in run.models.items()]
    facts = {"priority": run.priority, "deadline": run.deadline}
    return {"id": run.id, "state": run.state} | facts | {"counts": run.counts.to_dict(), "models": names}


def _json_object(required: bool) -> Mapping[str, Any]:
    if not request.is_json:
        raise UnsupportedType("Send JSON, with the header Content-Type: application/json.")
    try:
        body = request.get_json() if required or request.content_length else {}
    except BadRequest:
        raise BadRequest('The body is not valid JSON; send an object such as {"prompts": ["…"]}, in UTF-8.') from None
    except RecursionError:
        raise InvalidInput("The body is nested too deeply; send one flat JSON object.") from None
    if not isinstance(body, dict):
        raise InvalidInput('The body must be a JSON object such as {"prompts": ["写一首关于春天的诗"]}.')
    return body


def _prompts(value: Any) -> list[NewPrompt]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidInput("prompts must be a list of texts.", "prompts")
    for index, text in enumerate(value):
        if LONE_SURROGATE.search(text):
            problem = f"Prompt {index + 1} has half a surrogate pair, which is no character; send it as UTF-8."
            raise InvalidInput(problem, f"prompts.{index}")
    return [NewPrompt(text) for text in value]


def _names(value: Any) -> list[str] | None:
    if value is not None and (not isinstance(value, list) or not all(isinstance(name, str) for name in value)):
        raise InvalidInput("models must be a list of names; GET /api/models shows them.", "models")
    return value


def _kind(value: Any) -> RunKind | None:
    if value is not None and (not isinstance(value, str) or value not in set(RunKind)):
        raise InvalidInput("kind must be arena or bulk.", "kind")
    return RunKind(value) if value else None


def _whole(name: str, default: int, low: int, high: int) -> int:
    text = request.args.get(name, str(default))
    if not text.isdecimal() or len(text) > MAX_DIGITS or not low <= int(text) <= high:
        raise InvalidInput(f"{name} must be a whole number from {low} to {high}.", name)
    return int(text)


def _place(text: str | None) -> Place | None:
    found = PLACE.fullmatch(text or "")
    if text is not None and not found:
        raise InvalidInput("after must be what an earlier page of completions gave as next.", "after")
    return Place(int(found[1]), found[3], int(found[2])) if found else None
