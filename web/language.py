"""Chinese and English: which one a visitor reads, and the texts."""

import time
import tomllib
from pathlib import Path
from typing import Any

from flask import Blueprint, g, redirect, request
from flask.typing import ResponseReturnValue

from tasks.measures.grace_texts import Language
from web.host import service

TEXTS: dict[str, dict[str, str]] = tomllib.loads((Path(__file__).parent / "texts.toml").read_text(encoding="utf-8"))
COOKIE = "language"
YEAR = 365 * 86_400

blueprint = Blueprint("language", __name__)


@blueprint.post("/language/<chosen>")
def switch(chosen: str) -> ResponseReturnValue:
    """Remember a language and go back to where the visitor was."""
    back = request.form.get("back", "/")
    response = redirect(back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/")
    if chosen in set(Language):
        response.set_cookie(COOKIE, chosen, max_age=YEAR, samesite="Lax")
    return response


def current() -> Language:
    """The remembered language, else the browser's, else Chinese."""
    remembered = request.cookies.get(COOKIE)
    if remembered in set(Language):
        return Language(remembered)
    return Language(request.accept_languages.best_match([Language.ZH, Language.EN], Language.ZH))


def translate(key: str, **values: object) -> str:
    """The text under ``key`` in the visitor's language. Raises KeyError for an unknown key."""
    return TEXTS[key][current()].format(**values)


def template_values() -> dict[str, Any]:
    language = current()
    specs = service().registry.models
    return {
        "t": translate,
        "language": language,
        "nonce": g.nonce,
        "label": lambda name: specs[name].text("label", language) if name in specs else name,
        "clock": lambda moment: time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)),
        "seconds": lambda value: "–" if value is None else f"{value:.3f} s",
        "number": lambda value: "–" if value is None else f"{value:.2f}",
    }
