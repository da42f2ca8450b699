"""Files: what a file that was handed in holds, how it is read, and the run that is made of it."""

import json
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from tasks.errors import InvalidInput, TouchstoneError
from tasks.files.read import preview, read
from tasks.files.read.reading import Column, Encoding, FileFormat, Preview, Reading, Separator
from tasks.measures.estimate import Estimate
from tasks.sampling import BOUNDS, check_settings
from tasks.schema import validated
from tasks.states import RunKind
from web import cards, security
from web.host import service
from web.pages.arena import read_sampling
from web.schema.values import number_of

PLAIN = ("format", "encoding", "separator", "template", "system", "category")
SEPARATORS = {"comma": Separator.COMMA, "semicolon": Separator.SEMICOLON, "tab": Separator.TAB}

blueprint = Blueprint("files", __name__, url_prefix="/batches/files")


@blueprint.get("/<upload_id>")
def show(upload_id: str) -> ResponseReturnValue:
    return _page(upload_id, request.args, None)


@blueprint.post("/<upload_id>")
def submit(upload_id: str) -> ResponseReturnValue:
    form = request.form
    try:
        reading = reading_of(form)
        with service().uploads.open(upload_id, security.owner()) as (stored, stream):
            run, _ = service().submit(
                prompts=read(stream, stored.name, reading),
                models=form.getlist("models") or None,
                sampling=read_sampling(form),
                samples=number_of(form.get("samples") or "1"),
                deadline=number_of(form["deadline"]) if form.get("deadline", "").strip() else None,
                kind=RunKind.BULK,
                owner=security.owner(),
                title=form.get("title", "")[:200] or stored.name,
                fresh="fresh" in form,
                set_name=form.get("title", "")[:200] or stored.name,
            )
    except TouchstoneError as error:
        return _page(upload_id, form, error)
    return redirect(url_for("run.show", run_id=run.id), 303)


@blueprint.post("/<upload_id>/add")
def add(upload_id: str) -> ResponseReturnValue:
    """Add what the file holds to a run that is there."""
    form = request.form
    run_id = form.get("run", "")
    try:
        with service().uploads.open(upload_id, security.owner()) as (stored, stream):
            service().add_prompts(run_id, read(stream, stored.name, reading_of(form)))
    except TouchstoneError as error:
        return _page(upload_id, form, error)
    return redirect(url_for("run.show", run_id=run_id), 303)


def _page(upload_id: str, given: Mapping[str, Any], error: TouchstoneError | None) -> ResponseReturnValue:
    with service().uploads.open(upload_id, security.owner()) as (stored, stream):
        seen = None
        try:
            reading = reading_of(given)
            seen = preview(stream, stored.name, reading)
        except InvalidInput as problem:
            error = error or problem
    page = render_template(
        "batches/file.html",
        upload=stored,
        seen=seen,
        run=service().ledger.runs.get(given["run"]) if given.get("run") else None,
        separators=SEPARATORS,
        formats=list(FileFormat),
        encodings=list(Encoding),
        held=list(Column),
        models=cards.all_models(service()),
        chosen=request.form.getlist("models"),
        bounds=BOUNDS,
        estimate=_estimate(seen) if seen and seen.prompts else None,
        error=error,
    )
    return page, error.status if error else 200


def _estimate(seen: Preview) -> Estimate:
    """How long each model of the registry would take with the settings of the form, as far as they are right."""
    try:
        sampling = check_settings(read_sampling(request.form))
    except InvalidInput:
        sampling = {}
    return service().estimate(
        prompts=seen.prompts,
        lengths=seen.lengths,
        models=None,
        sampling=sampling,
        owner=security.owner(),
        kind=RunKind.BULK,
    )


def reading_of(given: Mapping[str, Any]) -> Reading:
    """How a file is read, from the fields of a form or an address. Raises `InvalidInput`."""
    if given.get("reading"):
        try:
            return validated(Reading, json.loads(given["reading"]), "reading")
        except ValueError:
            raise InvalidInput("How the file is read got lost; look at its preview again.") from None
    values: dict[str, Any] = {name: given[name] for name in PLAIN if given.get(name, "").strip()}
    if "separator" in values:
        values["separator"] = SEPARATORS.get(values["separator"], values["separator"])
    columns = {held: given[f"column.{held}"].strip() for held in Column if given.get(f"column.{held}")}
    return validated(Reading, values | ({"columns": columns} if columns else {}) | {"leave_out": "leave_out" in given})
