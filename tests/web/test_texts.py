"""Every text that pages ask for is there in both languages, whatever state there is to be told."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from tasks.files.read.reading import Column, FileFormat
from tasks.files.write import ExportFormat
from tasks.measures.estimate import NoEstimate
from tasks.registry.entry import BackendKind
from tasks.states import FinishReason, LoadStage, Origin, RunAction, RunState, WaitReason
from web.language import TEXTS
from web.schema.answers import Settings
from web.schema.states import ModelState, ShownWorkerState

WEB = Path(__file__).resolve().parents[2] / "web"
LITERAL = re.compile(r"""\b(?:t|translate)\(\s*f?["']([\w.]+)["']\s*[,)]""")
PREFIX = re.compile(r"""(?:\bt\(\s*["']|texts_of\(\s*["']|translate\(f["']|TEXTS\[f["'])([\w.]+\.)""")
STATES: dict[str, type[StrEnum]] = {
    "run.state.": RunState,
    "finish.": FinishReason,
    "wait.": WaitReason,
    "stage.": LoadStage,
    "worker.": ShownWorkerState,
    "model.state.": ModelState,
    "backend.": BackendKind,
    "estimate.": NoEstimate,
    "origin.": Origin,
    "format.": FileFormat,
    "column.": Column,
    "export.": ExportFormat,
}
SOURCES = [path for kind in ("*.html", "*.py") for path in WEB.rglob(kind)]


def test_every_text_that_is_asked_for_by_name_is_there() -> None:
    asked = {key for path in SOURCES for key in LITERAL.findall(path.read_text(encoding="utf-8"))}
    assert len(asked) > 60
    assert asked - TEXTS.keys() == set()


@pytest.mark.parametrize("prefix", STATES)
def test_every_state_has_its_words(prefix: str) -> None:
    missing = {f"{prefix}{value}" for value in STATES[prefix]} - TEXTS.keys()
    assert missing - {"run.state.deleted"} == set()


def test_every_setting_and_action_has_its_words() -> None:
    wanted = {f"chip.{name}" for name in (*Settings.model_fields, "samples", "deadline")}
    wanted |= {f"run.{action}" for action in RunAction}
    wanted |= {f"model.remedy.{state}" for state in set(ModelState) - {ModelState.READY, ModelState.LOADING}}
    assert wanted - TEXTS.keys() == set()


def test_no_text_is_left_that_nobody_asks_for() -> None:
    written = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    prefixes = tuple(PREFIX.findall(written))
    navigation = {key for key in TEXTS if f'"{key}"' in written}
    assert {key for key in TEXTS if not key.startswith(prefixes)} - navigation == set()


def test_both_languages_have_the_same_places_to_fill() -> None:
    for key, text in TEXTS.items():
        assert set(text) == {"zh", "en"} and all(text.values()), key
        places = [sorted(re.findall(r"\{(\w+)\}", words)) for words in text.values()]
        assert places[0] == places[1], key
