"""Run: the permalink of what was asked and what came out."""

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from tasks.measures.answers import completion_phases
from tasks.states import RunAction
from web import language
from web.host import figures, service

PAGE = 50

blueprint = Blueprint("run", __name__)


@blueprint.get("/runs/<run_id>")
def show(run_id: str) -> ResponseReturnValue:
    ledger = service().ledger
    run = ledger.runs.get(run_id)
    pages = -(-run.prompts // PAGE)
    page = min(max(0, request.args.get("page", 0, type=int)), pages - 1)
    rows = ledger.completions.for_prompts(run_id, page * PAGE, PAGE)
    cells: dict[tuple[int, str], list[object]] = {}
    for row in rows:
        cells.setdefault((row.idx, row.model), []).append((row, completion_phases(row)))
    environments = ledger.completions.environments({row.environment for row in rows if row.environment})
    return render_template(
        "run.html",
        run=run,
        prompts=ledger.runs.prompts(run_id, page * PAGE, PAGE),
        cells=cells,
        page=page,
        pages=pages,
        environments=environments,
        standing=figures().standing(language.current(), run.models, run_id),
    )


@blueprint.post(f"/runs/<run_id>/<any({','.join(RunAction)}):action>")
def act(run_id: str, action: str) -> ResponseReturnValue:
    service().act(run_id, RunAction(action))
    return _back(run_id)


@blueprint.post("/runs/<run_id>/priority")
def prioritise(run_id: str) -> ResponseReturnValue:
    service().prioritise(run_id, request.form.get("priority", default=0, type=int))
    return _back(run_id)


@blueprint.post("/runs/<run_id>/delete")
def delete(run_id: str) -> ResponseReturnValue:
    service().delete(run_id)
    return redirect(url_for("batches.show"), 303)


def _back(run_id: str) -> ResponseReturnValue:
    """To the page whose button was pressed."""
    batches = request.form.get("back") == "batches"
    return redirect(url_for("batches.show") if batches else url_for("run.show", run_id=run_id), 303)
