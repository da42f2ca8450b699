"""Models: a card for each with its state, reason and remedy, and the workers below."""

from flask import Blueprint, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from tasks.conversation import NewPrompt
from tasks.measures.grace_texts import Language
from tasks.states import RunKind
from web import cards, language, security, views
from web.host import service

GREETING = {Language.ZH: "你好", Language.EN: "Hello"}
SMOKE = {"max_new_tokens": 32}

blueprint = Blueprint("models", __name__, url_prefix="/models")


@blueprint.get("")
def show() -> ResponseReturnValue:
    workers = [views.worker(row) for row in service().ledger.workers.all()]
    return render_template("models.html", models=cards.all_models(service()), workers=workers)


@blueprint.post("/<model>/smoke")
def smoke(model: str) -> ResponseReturnValue:
    """Let one model answer a greeting, to see whether it answers at all."""
    run, _ = service().submit(
        prompts=[NewPrompt(GREETING[language.current()])],
        models=[model],
        sampling=SMOKE,
        kind=RunKind.ARENA,
        owner=security.owner(),
        title=language.translate("models.smoke_title", model=model),
    )
    return redirect(url_for("run.show", run_id=run.id), 303)
