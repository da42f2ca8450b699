"""Report: generated for a run, and the project's own."""

import nh3
from flask import Blueprint, Response, render_template
from flask.typing import ResponseReturnValue
from markdown_it import MarkdownIt

from tasks.answers import times_of
from tasks.grace import axes_of
from tasks.latency import summarise
from tasks.report import ReportExample, ReportModel, RunReport, render
from tasks.settings import ROOT
from web import language
from web.host import service

VERSION = "0.1.0"
EXAMPLES = 5
RECENT = 5000

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
    rows = ledger.completions.recent(None, run_id, RECENT)
    facts = ledger.completions.environments({row.environment for row in rows if row.environment})
    models = []
    for name, counts in run.models.items():
        own = [row for row in rows if row.model == name]
        used = next((facts[row.environment].facts for row in own if row.environment), {})
        shown = {key: str(value) for key, value in used.items() if value is not None}
        latency = summarise(map(times_of, own)) if own else None
        revision = shown.get("revision", "")
        models.append(
            ReportModel(name, revision, counts.done, counts.failed, counts.cancelled, counts.pending, latency, shown)
        )
    examples = [
        ReportExample(prompt.text, {row.model: row.text for row in rows if row.idx == prompt.idx and row.sample == 0})
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
        automatic=axes_of(ledger.scores.recent(None, run_id, RECENT)),
        examples=examples,
    )
