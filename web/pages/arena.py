"""Arena: one prompt, every model, side by side."""

from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput, TouchstoneError
from tasks.sampling import BOUNDS
from tasks.states import RunKind
from web import security, views
from web.host import service

SAMPLE = "写一首关于春天的诗"

blueprint = Blueprint("arena", __name__)


@blueprint.get("/")
def show() -> ResponseReturnValue:
    return _page(request.args.get("prompt", SAMPLE), None), 200


@blueprint.post("/")
def submit() -> ResponseReturnValue:
    try:
        run, _ = service().submit(
            prompts=[NewPrompt(request.form.get("prompt", ""))],
            models=request.form.getlist("models") or None,
            sampling=read_sampling(request.form),
            samples=int(_number("samples", request.form.get("samples") or "1", True)),
            kind=RunKind.ARENA,
            owner=security.owner(),
        )
    except TouchstoneError as error:
        return _page(request.form.get("prompt", ""), error), error.status
    return redirect(url_for("run.show", run_id=run.id), 303)


def _page(prompt: str, error: TouchstoneError | None) -> str:
    chosen = request.form.getlist("models")
    newest = service().ledger.runs.newest(8)
    models = views.models(service())
    return render_template(
        "arena.html", prompt=prompt, models=models, chosen=chosen, error=error, bounds=BOUNDS, newest=newest
    )


def read_sampling(form: Any) -> dict[str, Any]:
    """Decoding settings of a form; what was left empty is the model's own choice."""
    settings: dict[str, Any] = {
        name: _number(name, form[name].strip(), bounds.integer)
        for name, bounds in BOUNDS.items()
        if form.get(name, "").strip()
    }
    stops = [line for line in form.get("stop", "").splitlines() if line]
    return settings | ({"stop": stops} if stops else {})


def _number(name: str, text: str, integer: bool) -> float:
    try:
        return int(text) if integer else float(text)
    except ValueError:
        kind = "a whole number" if integer else "a number"
        raise InvalidInput(f"{name} is {text!r}; it must be {kind}.", name) from None
