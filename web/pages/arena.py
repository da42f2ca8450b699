"""Arena: one prompt, every model, side by side."""

from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from tasks.conversation import NewPrompt
from tasks.errors import TouchstoneError
from tasks.sampling import BOUNDS
from tasks.states import RunKind
from web import cards, security
from web.host import service
from web.schema.values import number_of

SAMPLE = "写一首关于春天的诗"

blueprint = Blueprint("arena", __name__)


@blueprint.get("/")
def show() -> ResponseReturnValue:
    return _page(request.args.get("prompt", SAMPLE), request.args.get("system", ""), None), 200


@blueprint.post("/")
def submit() -> ResponseReturnValue:
    prompt, system = request.form.get("prompt", ""), request.form.get("system", "")
    try:
        run, _ = service().submit(
            prompts=[NewPrompt(prompt, system if system.strip() else None)],
            models=request.form.getlist("models") or None,
            sampling=read_sampling(request.form),
            samples=number_of(request.form.get("samples") or "1"),
            kind=RunKind.ARENA,
            owner=security.owner(),
        )
    except TouchstoneError as error:
        return _page(prompt, system, error), error.status
    return redirect(url_for("run.show", run_id=run.id), 303)


def _page(prompt: str, system: str, error: TouchstoneError | None) -> str:
    return render_template(
        "arena.html",
        prompt=prompt,
        system=system,
        models=cards.all_models(service()),
        chosen=request.form.getlist("models"),
        error=error,
        bounds=BOUNDS,
        newest=service().ledger.runs.newest(8),
    )


def read_sampling(form: Any) -> dict[str, Any]:
    """Decoding settings of a form; what was left empty is the model's own choice."""
    settings = {name: number_of(form[name]) for name in BOUNDS if form.get(name, "").strip()}
    stops = [line for line in form.get("stop", "").splitlines() if line]
    return settings | ({"stop": stops} if stops else {})
