"""What there is: models, workers, and the description of the API itself."""

from flask.typing import ResponseReturnValue

from web import cards, views
from web.api.blueprint import blueprint, json_of
from web.host import service
from web.openapi import DOCUMENT
from web.schema import answers


@blueprint.get("/models")
def models() -> ResponseReturnValue:
    return json_of(answers.Models(models=cards.all_models(service())))


@blueprint.get("/workers")
def workers() -> ResponseReturnValue:
    return json_of(answers.Workers(workers=[views.worker(row) for row in service().ledger.workers.all()]))


@blueprint.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    return DOCUMENT
