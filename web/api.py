"""The JSON API under /api."""

import io
import re
from typing import cast

from flask import Blueprint, Response, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import BaseModel

from tasks.errors import InvalidInput, NotFound
from tasks.files.read import read
from tasks.ledger.completions import Place, place_of
from tasks.ledger.records import Run
from tasks.run_schema import PriorityOption
from tasks.states import RunAction, RunKind
from web import cards, events, received, views
from web.host import service
from web.openapi import DOCUMENT
from web.received import UnsupportedType
from web.schema import answers, requests

OWNER = "api"
DRAINED_BYTES = 2**16
PLACE = re.compile(r"(\d{1,9})\.(\d{1,9})\.(.+)", re.ASCII)

blueprint = Blueprint("api", __name__, url_prefix="/api")


@blueprint.post("/runs")
def submit() -> ResponseReturnValue:
    new = received.body(requests.NewRun)
    run, _ = service().submit(
        prompts=new.new_prompts(),
        models=new.models,
        sampling=new.sampling.model_dump(exclude_none=True),
        samples=new.samples,
        deadline=new.deadline,
        kind=new.kind,
        owner=OWNER,
        idempotency_key=request.headers.get("Idempotency-Key"),
        title=new.title,
    )
    return _accepted(run)


@blueprint.post("/runs/file")
def submit_file() -> ResponseReturnValue:
    """A file of prompts as the body, read as it comes in."""
    if request.mimetype != "application/octet-stream":
        raise UnsupportedType("Send the file as it is, with the header Content-Type: application/octet-stream.")
    try:
        query = received.query(requests.FileQuery)
        run, _ = service().submit(
            prompts=read(io.BufferedReader(cast(io.RawIOBase, request.stream)), query.name),
            models=query.models,
            sampling={},
            samples=query.samples,
            kind=RunKind.BULK,
            owner=OWNER,
            idempotency_key=request.headers.get("Idempotency-Key"),
            title=query.name,
        )
    finally:
        # A client that is still sending would never read the answer to its mistake.
        while request.stream.read(DRAINED_BYTES):
            pass
    return _accepted(run)


@blueprint.get("/runs/<run_id>")
def show(run_id: str) -> ResponseReturnValue:
    return _described(service().ledger.runs.get(run_id))


@blueprint.post("/runs/<run_id>/prompts")
def follow(run_id: str) -> ResponseReturnValue:
    run, idx = service().follow(run_id, received.body(requests.FollowUp).to_prompt(""))
    url = url_for("run.show", run_id=run.id)
    return _json(answers.Followed(id=run.id, url=url, idx=idx)), 202, {"Location": url_for("api.show", run_id=run.id)}


@blueprint.get("/runs/<run_id>/completions")
def completions(run_id: str) -> ResponseReturnValue:
    ledger = service().ledger
    ledger.runs.get(run_id)
    query = received.query(requests.PageQuery)
    rows = ledger.completions.page(run_id, query.model, _place(query.after), query.limit)
    last = place_of(rows[-1]) if len(rows) == query.limit else None
    following = f"{last.idx}.{last.sample}.{last.model}" if last else None
    return _json(answers.Completions(completions=[views.completion(row) for row in rows], next=following))


@blueprint.get("/runs/<run_id>/rendered")
def rendered(run_id: str) -> ResponseReturnValue:
    ledger = service().ledger
    ledger.runs.get(run_id)
    query = received.query(requests.CompletionQuery)
    found = ledger.completions.rendering(run_id, query.model, query.idx, query.sample)
    if found is None:
        raise NotFound("What the model saw is not known; it is stored when a completion ends, where its backend knows.")
    return _json(answers.Rendered(text=found.text, tokens=list(found.tokens)))


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
    received.body(requests.Nothing, required=False)
    return _described(service().act(run_id, action))


@blueprint.post("/runs/<run_id>/models/<model>/fail")
def give_up(run_id: str, model: str) -> ResponseReturnValue:
    received.body(requests.Nothing, required=False)
    return _described(service().give_up(run_id, model))


@blueprint.post("/runs/<run_id>/priority")
def prioritise(run_id: str) -> ResponseReturnValue:
    return _described(service().prioritise(run_id, received.body(PriorityOption).priority))


@blueprint.delete("/runs/<run_id>")
def delete(run_id: str) -> ResponseReturnValue:
    service().delete(run_id)
    return "", 204


@blueprint.get("/models")
def models() -> ResponseReturnValue:
    return _json(answers.Models(models=cards.all_models(service())))


@blueprint.get("/workers")
def workers() -> ResponseReturnValue:
    return _json(answers.Workers(workers=[views.worker(row) for row in service().ledger.workers.all()]))


@blueprint.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    return DOCUMENT


def _accepted(run: Run) -> ResponseReturnValue:
    answer = answers.Submitted(id=run.id, url=url_for("run.show", run_id=run.id))
    return _json(answer), 202, {"Location": url_for("api.show", run_id=run.id)}


def _described(run: Run) -> ResponseReturnValue:
    return _json(views.run(run, service().waits(run)))


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), mimetype="application/json")


def _place(text: str | None) -> Place | None:
    found = PLACE.fullmatch(text or "")
    if text is not None and not found:
        raise InvalidInput("after must be what an earlier page of completions gave as next.", "after")
    return Place(int(found[1]), found[3], int(found[2])) if found else None
