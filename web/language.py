"""Chinese and English: which one a visitor reads, and the texts."""

import time
import tomllib
from pathlib import Path
from typing import Any

from flask import Blueprint, g, redirect, request
from flask.typing import ResponseReturnValue

from tasks.ledger.records import Wait
from tasks.measures.grace_texts import Language
from web.host import service

TEXTS: dict[str, dict[str, str]] = tomllib.loads((Path(__file__).parent / "texts.toml").read_text(encoding="utf-8"))
COOKIE = "language"
YEAR = 365 * 86_400
UNITS = (("day", 86_400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))

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


def texts_of(prefix: str) -> dict[str, str]:
    """The texts whose keys begin with ``prefix``, by the rest of the key, in the visitor's language."""
    return {key.removeprefix(prefix): text[current()] for key, text in TEXTS.items() if key.startswith(prefix)}


def loading_words(stage: str | None, share: float | None) -> str:
    """What a worker that loads does, and how far it is; empty where that is not known."""
    if stage is None:
        return ""
    return translate(f"stage.{stage}") + ("" if share is None else f" {share:.0%}")


def wait_words(wait: Wait) -> str:
    """Why a model waits, in one line, with what its worker itself says."""
    parts = (translate(f"wait.{wait.reason}"), loading_words(wait.stage, wait.share), wait.detail)
    return " ".join(part for part in parts if part)


def span_words(low: float | None, high: float | None) -> str:
    """A range of seconds, such as 2–5 min; empty where it is not known."""
    if low is None or high is None:
        return ""
    unit, seconds = next((unit for unit in UNITS if high >= unit[1]), UNITS[-1])
    ends = [f"{end / seconds:.0f}" if end >= 10 * seconds else f"{end / seconds:.1g}" for end in (low, high)]
    return f"{'–'.join(dict.fromkeys(ends))} {translate(f'unit.{unit}')}"


def size_words(number: float | None) -> str:
    """A number of bytes."""
    return "–" if number is None else f"{number / 2**20:,.0f} MB"


def count_words(number: float) -> str:
    """A large number with a letter for thousands, millions or billions, such as 135M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:g}"


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
        "texts_of": texts_of,
        "loading_words": loading_words,
        "wait_words": wait_words,
        "span": span_words,
        "size": size_words,
        "count": count_words,
        "number": lambda value: "–" if value is None else f"{value:.2f}",
    }
