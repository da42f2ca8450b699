"""Runs: submit, list, look, act."""

from flask import request
from flask.typing import ResponseReturnValue

from tasks.run_schema import PriorityOption
from tasks.states import RunAction, RunKind
from web import received, views
from web.api.blueprint import OWNER, accepted, blueprint, described, json_of
from web.api.files import prompts_of
from web.host import service
from web.schema import answers, requests


@blueprint.post("/runs")
def submit() -> ResponseReturnValue:
    new = received.body(requests.NewRun)
    with prompts_of(new) as prompts:
        run, _ = service().submit(
            prompts=prompts,
            models=new.models,
            sampling=new.sampling.model_dump(exclude_none=True),
            samples=new.samples,
            deadline=new.deadline,
            kind=new.kind or (RunKind.BULK if new.upload else None),
            owner=OWNER,
            idempotency_key=request.headers.get("Idempotency-Key"),
            title=new.title,
            fresh=new.fresh,
            set_name=new.set_name,
        )
    return accepted(run)


@blueprint.get("/runs")
def every() -> ResponseReturnValue:
    query = received.query(requests.RunsQuery)
    runs, following = service().ledger.runs.search(
        search=query.search,
        state=query.state,
        kind=query.kind,
        prompt_set=query.set,
        model=query.model,
        after=query.after,
        limit=query.limit,
    )
    return json_of(answers.Runs(runs=[views.summary(run) for run in runs], next=following))


@blueprint.get("/runs/<run_id>")
def show(run_id: str) -> ResponseReturnValue:
    return described(service().ledger.runs.get(run_id))


@blueprint.post("/runs/<run_id>/pause", defaults={"action": RunAction.PAUSE})
@blueprint.post("/runs/<run_id>/resume", defaults={"action": RunAction.RESUME})
@blueprint.post("/runs/<run_id>/cancel", defaults={"action": RunAction.CANCEL})
@blueprint.post("/runs/<run_id>/retry", defaults={"action": RunAction.RETRY})
def act(run_id: str, action: RunAction) -> ResponseReturnValue:
    received.body(requests.Nothing, required=False)
    return described(service().act(run_id, action))


@blueprint.post("/runs/<run_id>/models/<model>/fail")
def give_up(run_id: str, model: str) -> ResponseReturnValue:
    received.body(requests.Nothing, required=False)
    return described(service().give_up(run_id, model))


@blueprint.post("/runs/<run_id>/priority")
def prioritise(run_id: str) -> ResponseReturnValue:
    return described(service().prioritise(run_id, received.body(PriorityOption).priority))


@blueprint.delete("/runs/<run_id>")
def delete(run_id: str) -> ResponseReturnValue:
    service().delete(run_id)
    return "", 204
