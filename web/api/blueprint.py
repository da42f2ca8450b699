"""The blueprint of the API and what its views share."""

import re

from flask import Blueprint, Response, url_for
from flask.typing import ResponseReturnValue
from pydantic import BaseModel

from tasks.errors import InvalidInput
from tasks.ledger.completions import Place
from tasks.ledger.records import Run
from web import views
from web.host import service
from web.schema import answers

OWNER = "api"
PLACE = re.compile(r"(\d{1,9})\.(\d{1,9})\.(.+)", re.ASCII)

blueprint = Blueprint("api", __name__, url_prefix="/api")


def json_of(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), mimetype="application/json")


def accepted(run: Run) -> ResponseReturnValue:
    answer = answers.Submitted(id=run.id, url=url_for("run.show", run_id=run.id))
    return json_of(answer), 202, {"Location": url_for("api.show", run_id=run.id)}


def described(run: Run) -> ResponseReturnValue:
    left = service().remaining(run) if run.counts.pending else None
    return json_of(views.run(run, service().waits(run), left))


def place_of(text: str | None) -> Place | None:
    """The place that an earlier page gave as its next. Raises `InvalidInput`."""
    found = PLACE.fullmatch(text or "")
    if text is not None and not found:
        raise InvalidInput("after must be what an earlier page of completions gave as next.", "after")
    return Place(int(found[1]), found[3], int(found[2])) if found else None


def text_of(place: Place | None) -> str | None:
    """A place as it is given to ask for the following page."""
    return f"{place.idx}.{place.sample}.{place.model}" if place else None
