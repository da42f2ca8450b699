"""Adding to a run from its page: models, samples, prompts, answers made elsewhere, the columns of another run."""

from collections.abc import Callable

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from tasks.errors import InvalidInput, TouchstoneError
from tasks.files.read.answers import Problems, read_answers
from tasks.files.write import ExportFormat, export
from tasks.ledger.records import Imported, Run
from tasks.run_schema import MAX_SAMPLES
from tasks.schema import validated
from web import attachment, security
from web.host import service
from web.schema.requests import MoreSamples
from web.schema.values import number_of

blueprint = Blueprint("growth", __name__, url_prefix="/runs/<run_id>")


@blueprint.get("/grow")
def show(run_id: str) -> ResponseReturnValue:
    return _page(service().ledger.runs.get(run_id))


@blueprint.post("/grow/models")
def add_models(run_id: str) -> ResponseReturnValue:
    return _grown(run_id, lambda: service().add_models(run_id, request.form.getlist("models")))


@blueprint.post("/grow/samples")
def add_samples(run_id: str) -> ResponseReturnValue:
    given = {"samples": number_of(request.form.get("samples", ""))}
    return _grown(run_id, lambda: service().add_samples(run_id, validated(MoreSamples, given).samples))


@blueprint.post("/grow/merge")
def merge(run_id: str) -> ResponseReturnValue:
    return _grown(run_id, lambda: service().merge(run_id, request.form.get("run", "")))


@blueprint.post("/grow/name_set")
def name_set(run_id: str) -> ResponseReturnValue:
    """Name the set of the run's prompts, for all runs that have it."""
    run = service().ledger.runs.get(run_id)
    try:
        service().name_set(run.prompt_set or "", request.form.get("name", "").strip())
    except TouchstoneError as error:
        return _page(run, error)
    return redirect(url_for("growth.show", run_id=run_id), 303)


@blueprint.post("/grow/prompts")
def add_prompts(run_id: str) -> ResponseReturnValue:
    """Keep the file, and show what it holds before it is added."""
    run = service().ledger.runs.get(run_id)
    try:
        file = request.files.get("file")
        if not file or not file.filename:
            raise InvalidInput("Choose a file with prompts.", "file")
        stored = service().uploads.store(file.stream, file.filename, security.owner())
    except TouchstoneError as error:
        return _page(run, error)
    return redirect(url_for("files.show", upload_id=stored.id, run=run_id), 303)


@blueprint.post("/grow/answers")
def import_answers(run_id: str) -> ResponseReturnValue:
    run = service().ledger.runs.get(run_id)
    try:
        file = request.files.get("file")
        if not file or not file.filename:
            raise InvalidInput("Choose a file with answers.", "file")
        stored = service().uploads.store(file.stream, file.filename, security.owner())
        label = request.form.get("label", "").strip()[:50] or None
        with service().uploads.open(stored.id) as (_, stream):
            problems = Problems()
            found = service().import_answers(run_id, read_answers(stream, stored.name, problems), label)
    except TouchstoneError as error:
        return _page(run, error)
    return _page(service().ledger.runs.get(run_id), imported=found, problems=problems)


@blueprint.get("/export/<format>")
def export_run(run_id: str, format: str) -> ResponseReturnValue:
    run = service().ledger.runs.get(run_id)
    if format not in set(ExportFormat):
        return _page(run, InvalidInput(f"There is no format {format!r}; choose one of {', '.join(ExportFormat)}."))
    try:
        models = request.args.getlist("models") or None
        return attachment.response(export(service().ledger, run_id, ExportFormat(format), models))
    except TouchstoneError as error:
        return _page(run, error)


def _grown(run_id: str, grow: Callable[[], Run]) -> ResponseReturnValue:
    try:
        grow()
    except TouchstoneError as error:
        return _page(service().ledger.runs.get(run_id), error)
    return redirect(url_for("run.show", run_id=run_id), 303)


def _page(
    run: Run,
    error: TouchstoneError | None = None,
    imported: Imported | None = None,
    problems: Problems | None = None,
) -> ResponseReturnValue:
    same, _ = service().ledger.runs.search(prompt_set=run.prompt_set, limit=50) if run.prompt_set else ([], None)
    page = render_template(
        "run/grow.html",
        run=run,
        others=[model for name, model in service().registry.models.items() if name not in run.models],
        same=[other for other in same if other.id != run.id],
        formats=list(ExportFormat),
        most_samples=MAX_SAMPLES - run.samples,
        error=error,
        imported=imported,
        problems=problems,
    )
    return page, error.status if error else 200
