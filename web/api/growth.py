"""Adding to a run: models, samples, prompts, answers made elsewhere, and the columns of another run."""

from flask import url_for
from flask.typing import ResponseReturnValue

from tasks.files.read.answers import Problems, read_answers
from web import received, views
from web.api.blueprint import OWNER, blueprint, described, json_of
from web.api.files import prompts_of
from web.host import service
from web.schema import answers, requests


@blueprint.post("/runs/<run_id>/models")
def add_models(run_id: str) -> ResponseReturnValue:
    return described(service().add_models(run_id, received.body(requests.MoreModels).models))


@blueprint.post("/runs/<run_id>/samples")
def add_samples(run_id: str) -> ResponseReturnValue:
    return described(service().add_samples(run_id, received.body(requests.MoreSamples).samples))


@blueprint.post("/runs/<run_id>/prompts")
def add_prompts(run_id: str) -> ResponseReturnValue:
    """A later turn of a conversation of the run, or prompts that stand by themselves."""
    sent = received.body(requests.MorePrompts)
    if sent.later_turn is None:
        with prompts_of(sent) as prompts:
            run, idx = service().add_prompts(run_id, prompts)
    else:
        run, idx = service().follow(run_id, sent.later_turn)
    url = url_for("run.show", run_id=run.id)
    return json_of(answers.Followed(id=run.id, url=url, idx=idx)), 202, {"Location": url_for("api.show", run_id=run.id)}


@blueprint.post("/runs/<run_id>/answers")
def import_answers(run_id: str) -> ResponseReturnValue:
    sent = received.body(requests.MadeElsewhere)
    with service().uploads.open(sent.upload, OWNER) as (stored, stream):
        problems = Problems()
        found = service().import_answers(run_id, read_answers(stream, stored.name, problems), sent.label)
    return json_of(views.imported(found, problems))


@blueprint.post("/runs/<run_id>/merge")
def merge(run_id: str) -> ResponseReturnValue:
    return described(service().merge(run_id, received.body(requests.OtherRun).run))
