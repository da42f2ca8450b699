"""Batches: many prompts at once, from a text box or a file, and how far they are."""

import io
from collections.abc import Iterator

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from tasks.conversation import NewPrompt
from tasks.errors import TouchstoneError
from tasks.files.read import Reading, read
from tasks.files.read.detection import lines_or_blocks
from tasks.states import RunKind
from web import cards, security
from web.host import service
from web.pages.arena import read_sampling

blueprint = Blueprint("batches", __name__, url_prefix="/batches")


@blueprint.get("")
def show() -> ResponseReturnValue:
    return _page(None), 200


@blueprint.post("")
def submit() -> ResponseReturnValue:
    try:
        run, _ = service().submit(
            prompts=_prompts(),
            models=request.form.getlist("models") or None,
            sampling=read_sampling(request.form),
            kind=RunKind.BULK,
            owner=security.owner(),
            title=request.files["file"].filename or "" if "file" in request.files else "",
        )
    except TouchstoneError as error:
        return _page(error), error.status
    return redirect(url_for("run.show", run_id=run.id), 303)


def _page(error: TouchstoneError | None) -> str:
    runs = service().ledger.runs.newest(30)
    models = cards.all_models(service())
    return render_template("batches.html", runs=runs, models=models, chosen=[], error=error)


def _prompts() -> Iterator[NewPrompt]:
    """Prompts of the file, or else of the text box."""
    file = request.files.get("file")
    if file and file.filename:
        return read(file.stream, file.filename)
    text = request.form.get("prompts", "")
    return read(io.BytesIO(text.encode()), "The text box", Reading(format=lines_or_blocks(text)))
