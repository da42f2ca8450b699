"""Models and workers: what is loaded where, and how it is."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from web import cards
from web.host import service

blueprint = Blueprint("models", __name__)


@blueprint.get("/models")
def show() -> ResponseReturnValue:
    workers = service().ledger.workers.all()
    return render_template("models.html", models=cards.all_models(service()), workers=workers)
