"""What a run has: its prompts, completions and scores, as pages, as a stream or as a file."""

from flask import Response, request
from flask.typing import ResponseReturnValue

from tasks.errors import NotFound
from tasks.files.write import export
from tasks.ledger.completions import place_of as place_of_row
from tasks.ledger.records import Completion
from web import attachment, events, received, views
from web.api.blueprint import blueprint, json_of, place_of, text_of
from web.host import service
from web.schema import answers, requests


@blueprint.get("/runs/<run_id>/prompts")
def prompts(run_id: str) -> ResponseReturnValue:
    ledger = service().ledger
    run = ledger.runs.get(run_id)
    query = received.query(requests.PromptsQuery)
    rows = ledger.runs.prompts(run_id, query.after + 1, min(query.limit, run.prompts - query.after - 1))
    last = rows[-1].idx if rows and rows[-1].idx + 1 < run.prompts else None
    return json_of(answers.Prompts(prompts=[views.prompt(row, row.idx) for row in rows], next=last))


@blueprint.get("/runs/<run_id>/completions")
def completions(run_id: str) -> ResponseReturnValue:
    rows, following = _page(run_id)
    return json_of(answers.Completions(completions=[views.completion(row) for row in rows], next=following))


@blueprint.get("/runs/<run_id>/scores")
def scores(run_id: str) -> ResponseReturnValue:
    rows, following = _page(run_id)
    found = service().ledger.scores.of_completions(rows)
    return json_of(answers.Scores(scores=[views.score(row) for row in found], next=following))


@blueprint.get("/runs/<run_id>/rendered")
def rendered(run_id: str) -> ResponseReturnValue:
    ledger = service().ledger
    ledger.runs.get(run_id)
    query = received.query(requests.CompletionQuery)
    found = ledger.completions.rendering(run_id, query.model, query.idx, query.sample)
    if found is None:
        raise NotFound("What the model saw is not known; it is stored when a completion ends, where its backend knows.")
    return json_of(answers.Rendered(text=found.text, tokens=list(found.tokens)))


@blueprint.get("/runs/<run_id>/export")
def export_run(run_id: str) -> ResponseReturnValue:
    """The run as a file, written while it is sent."""
    query = received.query(requests.ExportQuery)
    return attachment.response(export(service().ledger, run_id, query.format, query.models))


@blueprint.get("/runs/<run_id>/events")
def stream(run_id: str) -> ResponseReturnValue:
    run = service().ledger.runs.get(run_id)
    return Response(
        events.stream(service(), run, request.headers.get("Last-Event-ID", "0")),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _page(run_id: str) -> tuple[list[Completion], str | None]:
    """The completions that are asked for, and what to ask for the following ones. Raises `NotFound`."""
    ledger = service().ledger
    ledger.runs.get(run_id)
    query = received.query(requests.PageQuery)
    rows = ledger.completions.page(run_id, query.model, place_of(query.after), query.limit)
    return rows, text_of(place_of_row(rows[-1])) if len(rows) == query.limit else None
