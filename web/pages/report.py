"""Report: generated for a run, and the project's own."""

import nh3
from flask import Blueprint, Response, render_template
from flask.typing import ResponseReturnValue
from markdown_it import MarkdownIt

from tasks.errors import Unavailable
from tasks.ledger.records import Run
from tasks.measures.report import ReportExample, ReportModel, RunReport, render
from tasks.settings import ROOT
from tasks.version import VERSION
from web import language
from web.host import figures, service

EXAMPLES = 5
FIRST = 100
PATIENCE_SECONDS = 30.0

blueprint = Blueprint("report", __name__, url_prefix="/report")


@blueprint.get("")
def project() -> ResponseReturnValue:
    """The project's own report, as it was written."""
    written = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    return render_template("report.html", body=_html(written), runs=service().ledger.runs.newest(20), run=None)


@blueprint.get("/<run_id>")
def of_run(run_id: str) -> ResponseReturnValue:
    body = _html(render(_report(run_id), language.current()))
    return render_template("report.html", body=body, runs=service().ledger.runs.newest(20), run=run_id)


@blueprint.get("/<run_id>.md")
def download(run_id: str) -> ResponseReturnValue:
    headers = {"Content-Disposition": f"attachment; filename=report-{run_id}.md"}
    return Response(render(_report(run_id), language.current()), mimetype="text/markdown", headers=headers)


def _html(markdown: str) -> str:
    return nh3.clean(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))


def _report(run_id: str) -> RunReport:
    """What the report of a run is written from."""
    ledger = service().ledger
    run = ledger.runs.get(run_id)
    standing = figures().standing(language.current(), run.models, run_id, PATIENCE_SECONDS)
    if standing is None:
        raise Unavailable("The figures of this run are still being computed; ask again in a moment.")
    models = []
    for name, counts in run.models.items():
        shown = _environment(run_id, name)
        numbers = (counts.done, counts.failed, counts.cancelled, counts.pending)
        settings = _settings(run, name)
        models.append(
            ReportModel(name, shown.get("revision", ""), *numbers, standing.latency.get(name), shown, settings)
        )
    first = ledger.completions.for_prompts(run_id, 0, EXAMPLES)
    examples = [
        ReportExample(prompt.text, {row.model: row.text for row in first if row.idx == prompt.idx and row.sample == 0})
        for prompt in ledger.runs.prompts(run_id, 0, EXAMPLES)
    ]
    return RunReport(
        run=run.id,
        title=run.title,
        created=run.created,
        prompts=run.prompts,
        samples=run.samples,
        sampling=run.sampling,
        touchstone=VERSION,
        models=models,
        automatic=standing.scores,
        examples=examples,
    )


def _settings(run: Run, model: str) -> dict[str, object]:
    """What a model's completions were made with, by its entry and the run; nothing for runs of older ledgers."""
    entry = run.entries.get(model)
    effective = entry.effective(run.sampling) if entry else {}
    return {name: value for name, value in effective.items() if value not in (None, [])}


def _environment(run_id: str, model: str) -> dict[str, str]:
    """What the first completions of a model were made with."""
    completions = service().ledger.completions
    ids = [row.environment for row in completions.page(run_id, model, limit=FIRST) if row.environment]
    facts = completions.environments(ids[:1])
    return {
        key: str(value) for made_with in facts.values() for key, value in made_with.facts.items() if value is not None
    }
