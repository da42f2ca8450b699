"""Batches: many prompts at once, typed or from a file, and how far they are."""

import io

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from tasks.errors import InvalidInput, TouchstoneError
from tasks.ledger.records import Upload
from web import security
from web.host import service

TYPED = "typed.txt"

blueprint = Blueprint("batches", __name__, url_prefix="/batches")


@blueprint.get("")
def show() -> ResponseReturnValue:
    return _page(None), 200


@blueprint.post("")
def look() -> ResponseReturnValue:
    """Keep what was typed or chosen, and show what it holds before anything is queued."""
    try:
        stored = [one for one in (_file(), _typed()) if one]
        if not stored:
            raise InvalidInput("There is no prompt yet: type some, or choose a file.", "prompts")
    except TouchstoneError as error:
        return _page(error), error.status
    if len(stored) == 2:
        return render_template("batches/which.html", stored=stored, typed=TYPED), 200
    return redirect(url_for("files.show", upload_id=stored[0].id), 303)


def _page(error: TouchstoneError | None) -> str:
    query = request.args.get("search", "")[:200]
    runs, following = service().ledger.runs.search(search=query or None, after=request.args.get("after"), limit=30)
    return render_template("batches.html", runs=runs, next=following, search=query, error=error)


def _file() -> Upload | None:
    file = request.files.get("file")
    if not file or not file.filename:
        return None
    return service().uploads.store(file.stream, file.filename, security.owner())


def _typed() -> Upload | None:
    text = request.form.get("prompts", "")
    if not text.strip():
        return None
    return service().uploads.store(io.BytesIO(text.encode()), TYPED, security.owner())
