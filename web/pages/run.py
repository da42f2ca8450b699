"""Run: the permalink of what was asked and what came out."""

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from tasks.errors import TouchstoneError
from tasks.measures.answers import completion_phases
from tasks.run_schema import PriorityOption
from tasks.schema import validated
from tasks.states import RunAction, RunState
from web import chips, language, turns
from web.host import figures, service
from web.schema.requests import FollowUp
from web.schema.values import number_of

PAGE = 50

blueprint = Blueprint("run", __name__)


@blueprint.get("/runs/<run_id>")
def show(run_id: str) -> ResponseReturnValue:
    return _page(run_id, None), 200


@blueprint.post("/runs/<run_id>/prompts")
def follow(run_id: str) -> ResponseReturnValue:
    """Continue the conversation of a run."""
    given = {"prompt": request.form.get("prompt", ""), "follows": number_of(request.form.get("follows"))}
    try:
        _, idx = service().follow(run_id, validated(FollowUp, given).to_prompt(""))
    except TouchstoneError as error:
        if error.status == 404:
            raise
        return _page(run_id, error), error.status
    return redirect(url_for("run.show", run_id=run_id, page=idx // PAGE or None, _anchor=f"prompt-{idx}"), 303)


@blueprint.post(f"/runs/<run_id>/<any({','.join(RunAction)}):action>")
def act(run_id: str, action: str) -> ResponseReturnValue:
    service().act(run_id, RunAction(action))
    return _back(run_id)


@blueprint.post("/runs/<run_id>/models/<model>/fail")
def give_up(run_id: str, model: str) -> ResponseReturnValue:
    """Let what is pending of a model fail: nobody waits for it any longer."""
    service().give_up(run_id, model)
    return _back(run_id)


@blueprint.post("/runs/<run_id>/priority")
def prioritise(run_id: str) -> ResponseReturnValue:
    given = {"priority": number_of(request.form.get("priority"))}
    service().prioritise(run_id, validated(PriorityOption, given).priority)
    return _back(run_id)


@blueprint.post("/runs/<run_id>/delete")
def delete(run_id: str) -> ResponseReturnValue:
    service().delete(run_id)
    return redirect(url_for("batches.show"), 303)


def _page(run_id: str, error: TouchstoneError | None) -> str:
    ledger = service().ledger
    run = ledger.runs.get(run_id)
    pages = -(-run.prompts // PAGE)
    page = min(max(0, request.args.get("page", 0, type=int)), pages - 1)
    prompts = ledger.runs.prompts(run_id, page * PAGE, PAGE)
    rows = ledger.completions.for_prompts(run_id, page * PAGE, PAGE)
    entries = {**run.entries, **service().registry.models}  # a model that has left the registry keeps its label
    return render_template(
        "run.html",
        run=run,
        label=lambda name: entries[name].text("label", language.current()) if name in entries else name,
        prompts=turns.in_order(prompts),
        follows=turns.to_continue(prompts) if pages == 1 and run.state is not RunState.CANCELLED else None,
        cells={(row.idx, row.model, row.sample): (row, completion_phases(row)) for row in rows},
        page=page,
        page_size=PAGE,
        pages=pages,
        environments=ledger.completions.environments({row.environment for row in rows if row.environment}),
        waits=service().waits(run),
        left=service().remaining(run) if run.counts.pending else None,
        chips=chips.chips_of(run),
        standing=figures().standing(language.current(), run.models, run_id),
        error=error,
    )


def _back(run_id: str) -> ResponseReturnValue:
    """To the page whose button was pressed."""
    batches = request.form.get("back") == "batches"
    return redirect(url_for("batches.show") if batches else url_for("run.show", run_id=run_id), 303)
