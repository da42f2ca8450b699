"""Pages over a ledger that was filled by hand: every state in both languages, and nothing that people write is code."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask.testing import FlaskClient

from tasks.ledger import Ledger
from tasks.settings import Settings
from tasks.states import LoadStage, RunState, WorkerState
from tests.clock import pass_time
from tests.web import filled
from web import create_app
from web.language import TEXTS, count_words

LANGUAGES = ("zh", "en")


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def run(ledger: Ledger, settings: Settings) -> str:
    """Two turns for two models and one that has left the registry; the first model has answered both."""
    made = filled.conversation(ledger, settings, *filled.MODELS, "gone")
    filled.answer(ledger)
    return made


def page(client: FlaskClient, path: str, language: str) -> str:
    client.set_cookie("language", language)
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.text


def token(client: FlaskClient) -> str:
    return re.findall(r'name="csrf_token" value="([^"]+)"', client.get("/").text)[0]


def cell(text: str, name: str) -> str:
    """The HTML of one completion."""
    found = re.search(rf'<article class="card" data-cell="{name}".*?</article>', text, re.DOTALL)
    assert found
    return found[0]


def card(text: str, name: str) -> str:
    """The HTML of one model's card."""
    found = re.search(rf'<article class="card" data-model="{name}".*?</article>', text, re.DOTALL)
    assert found
    return found[0]


def wait_of(text: str, model: str) -> str:
    found = re.search(rf'<li data-wait="{model}".*?</li>', text, re.DOTALL)
    assert found
    return found[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_conversation_is_shown_turn_by_turn(client: FlaskClient, run: str, language: str) -> None:
    shown = page(client, f"/runs/{run}", language)
    order = ["简短", "第一句", "第二句", "你好", "您好", 'id="prompt-1"', "再见"]
    places = [shown.index(text) for text in order]
    assert places == sorted(places)
    for role in ("system", "user", "assistant"):
        assert TEXTS[f"role.{role}"][language] in shown
    assert TEXTS["run.follows"][language].format(number=1) in shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_thinking_is_folded_and_an_empty_answer_is_marked(client: FlaskClient, run: str, language: str) -> None:
    shown = page(client, f"/runs/{run}", language)
    answered, empty = cell(shown, "poet-small/0/0"), cell(shown, "poet-small/1/0")
    characters = len(f"嗯 {filled.EVIL}")
    assert TEXTS["run.thinking"][language].format(tokens=4, characters=characters) in answered
    assert '<details class="thinking">' in answered and '<p class="empty notice" hidden>' in answered
    reason = TEXTS["finish.stop"][language]
    assert TEXTS["run.empty"][language].format(reason=reason) in empty and '<p class="empty notice">' in empty
    assert f"/api/runs/{run}/rendered?model=poet-small&amp;idx=0&amp;sample=0" in answered
    waiting = cell(shown, "poet-large/1/0")
    assert TEXTS["run.waiting_turn"][language] in waiting and '<details class="thinking" hidden>' in waiting


def test_what_people_and_models_write_is_never_code(client: FlaskClient, ledger: Ledger, run: str) -> None:
    filled.register(ledger, "poet-large", WorkerState.FAILED, error=f"broken {filled.EVIL}")
    filled.register(ledger, "poet-small", facts={"architecture": filled.EVIL, "engine_reason": filled.EVIL})
    client.get(f"/runs/{run}")
    for path in (f"/runs/{run}", "/models", "/", "/batches", f"/report/{run}", f"/?system={filled.EVIL}"):
        shown = client.get(path).text
        assert "<script>alert" not in shown and "alert('&')" not in shown
    assert "broken &lt;/script&gt;" in client.get(f"/runs/{run}").text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_run_says_why_its_models_wait_and_what_can_be_done(
    client: FlaskClient, ledger: Ledger, run: str, language: str
) -> None:
    filled.register(ledger, "poet-large", WorkerState.LOADING, stage=LoadStage.READING, stage_share=0.5)
    shown = page(client, f"/runs/{run}", language)
    loading, gone = wait_of(shown, "poet-large"), wait_of(shown, "gone")
    assert f"{TEXTS['stage.reading'][language]} 50%" in loading and "data-blocked hidden" in loading
    assert TEXTS["wait.removed"][language] in gone and "data-blocked>" in gone
    assert f'action="/runs/{run}/models/gone/fail"' in gone and f'action="/runs/{run}/cancel"' in gone
    assert wait_of(shown, "poet-small").startswith('<li data-wait="poet-small" hidden>')
    filled.register(
        ledger, "poet-large", WorkerState.FAILED, error="poet-large: cannot load ../nowhere: no such folder"
    )
    shown = page(client, f"/runs/{run}", language)
    failed = wait_of(shown, "poet-large")
    assert TEXTS["wait.failed"][language] in failed and "no such folder" in failed and "data-blocked>" in failed
    assert TEXTS["run.blocked"][language] in shown


def test_a_model_that_nobody_waits_for_fails_with_its_reason(client: FlaskClient, ledger: Ledger, run: str) -> None:
    refused = client.post(f"/runs/{run}/models/gone/fail")
    assert refused.status_code == 400
    form = {"csrf_token": token(client)}
    assert client.post(f"/runs/{run}/models/gone/fail", data=form).status_code == 303
    counts = ledger.runs.get(run).models["gone"]
    assert (counts.failed, counts.pending) == (2, 0)
    assert "removed" in cell(client.get(f"/runs/{run}").text, "gone/0/0")
    assert client.post(f"/runs/{run}/models/nobody/fail", data=form).status_code == 404


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_settings_of_a_run_are_shown(client: FlaskClient, ledger: Ledger, run: str, language: str) -> None:
    shown = page(client, f"/runs/{run}", language)
    settings = shown[shown.index('<details class="settings">') :]
    assert f"{TEXTS['chip.temperature'][language]} <b>0.5</b>" in settings
    assert re.search(rf"{TEXTS['chip.source'][language]} <b>[^<]*poet-small</b>", settings)
    assert re.search(rf"{TEXTS['chip.source'][language]} <b>\.\./gone</b>", settings)


def test_a_conversation_goes_on_from_its_page(client: FlaskClient, ledger: Ledger, run: str) -> None:
    shown = client.get(f"/runs/{run}").text
    assert f'action="/runs/{run}/prompts"' in shown and 'name="follows" value="1"' in shown
    form = {"csrf_token": token(client), "follows": "1", "prompt": "后来呢？"}
    answer = client.post(f"/runs/{run}/prompts", data=form)
    assert answer.status_code == 303 and answer.location.endswith(f"/runs/{run}#prompt-2")
    assert ledger.runs.prompts(run)[2].follows == 1
    wrong = client.post(f"/runs/{run}/prompts", data=form | {"prompt": " "})
    assert wrong.status_code == 422 and 'role="alert"' in wrong.text
    assert client.post(f"/runs/{run}/prompts", data=form | {"follows": "x"}).status_code == 422
    assert client.post("/runs/none/prompts", data=form).status_code == 404
    ledger.control.cancel(run)
    assert ledger.runs.get(run).state is RunState.CANCELLED
    assert f'action="/runs/{run}/prompts"' not in client.get(f"/runs/{run}").text


def test_a_turn_leads_to_what_it_follows_on_another_page(client: FlaskClient, ledger: Ledger) -> None:
    made = client.post("/api/runs", json={"prompts": [str(i) for i in range(60)], "models": ["poet-small"]})
    run = str(made.json["id"]) if made.json else ""
    for follows in (3, 55):
        assert (
            client.post(f"/api/runs/{run}/prompts", json={"follows": follows, "prompt": "后来呢？"}).status_code == 202
        )
    shown = page(client, f"/runs/{run}?page=1", "en")
    assert f'href="/runs/{run}#prompt-3"' in shown and f'href="/runs/{run}?page=1#prompt-55"' in shown
    waiting = TEXTS["run.waiting_turn"]["en"]
    assert waiting not in cell(shown, "poet-small/60/0") and waiting in cell(shown, "poet-small/61/0")
    order = [shown.index(f'id="prompt-{idx}"') for idx in (55, 61, 56)]
    assert order == sorted(order)


def test_many_conversations_are_not_continued_all_at_once(client: FlaskClient) -> None:
    made = client.post("/api/runs", json={"prompts": ["一", {"prompt": "二", "follows": 0}, "三"]})
    assert made.json and f"/runs/{made.json['id']}/prompts" not in client.get(made.json["url"]).text


def test_the_form_of_the_arena_takes_a_system_message(client: FlaskClient, ledger: Ledger) -> None:
    form = {"prompt": "你好", "system": "简短", "csrf_token": token(client)}
    assert client.post("/", data=form).status_code == 303
    assert client.post("/", data=form | {"system": "  "}).status_code == 303
    systems = {ledger.runs.prompts(made.id)[0].system for made in ledger.runs.newest()}
    assert systems == {"简短", None}
    again = client.post("/", data=form | {"temperature": "9"})
    assert again.status_code == 422 and ">简短</textarea>" in again.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_arena_says_why_a_model_does_not_answer(client: FlaskClient, ledger: Ledger, language: str) -> None:
    filled.register(ledger, "poet-small", WorkerState.LOADING, stage=LoadStage.DOWNLOADING, stage_share=0.25)
    filled.register(ledger, "poet-large", WorkerState.FAILED, error="too large")
    shown = page(client, "/", language)
    assert f"{TEXTS['stage.downloading'][language]} 25%" in shown
    assert TEXTS["model.state.failed"][language] in shown and 'title="too large"' in shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_model_has_a_card_with_state_reason_and_remedy(
    client: FlaskClient, ledger: Ledger, run: str, language: str
) -> None:
    def shown(name: str) -> str:
        return card(page(client, "/models", language), name)

    def said(kind: str, state: str) -> str:
        return TEXTS[f"model.{kind}.{state}"][language]

    assert said("state", "no_worker") in shown("poet-small") and said("remedy", "no_worker") in shown("poet-small")
    assert said("state", "removed") in shown("gone") and "smoke" not in shown("gone")
    facts: dict[str, Any] = {"architecture": "GPT2", "parameters": 134_500_000, "context": 1024, "chat_template": False}
    facts |= {"engine": "compatible", "engine_reason": "its attention has sinks"}
    with registered(ledger, facts=facts, rss=200 * 2**20, load_seconds=1.5):
        ready = shown("poet-small")
        for part in ("GPT2", "134M", "1024", "200 MB", "1.500 s", "its attention has sinks", "float32"):
            assert part in ready
        assert said("state", "ready") in ready and TEXTS["models.compatible"][language] in ready
        no = TEXTS["no"][language]
        assert f"{TEXTS['fact.chat_template'][language]} <b>{no}</b>" in ready
        assert 'action="/models/poet-small/smoke"' in ready
    with registered(ledger, WorkerState.FAILED, error="not enough memory: needs 9 GB"):
        assert "needs 9 GB" in shown("poet-small") and said("remedy", "failed") in shown("poet-small")
    with registered(ledger, WorkerState.STOPPED):
        assert said("state", "no_worker") in shown("poet-small")


@contextmanager
def registered(ledger: Ledger, state: WorkerState = WorkerState.READY, **facts: Any) -> Iterator[None]:
    filled.register(ledger, "poet-small", state, **facts)
    yield


def test_a_worker_that_is_killed_shows_as_lost_within_twenty_seconds(client: FlaskClient, ledger: Ledger) -> None:
    filled.register(ledger, "poet-small")
    assert TEXTS["model.state.ready"]["en"] in card(page(client, "/models", "en"), "poet-small")
    pass_time(ledger, 20.0)
    shown = page(client, "/models", "en")
    assert TEXTS["model.state.lost"]["en"] in card(shown, "poet-small")
    assert TEXTS["model.remedy.lost"]["en"] in card(shown, "poet-small")
    assert f'<span class="bad">{TEXTS["worker.lost"]["en"]}</span>' in shown
    assert client.get("/api/workers").json["workers"][0]["state"] == "lost"  # type: ignore[index]


def test_a_smoke_test_asks_one_model_for_a_few_words(client: FlaskClient, ledger: Ledger) -> None:
    for language, greeting in (("zh", "你好"), ("en", "Hello")):
        client.set_cookie("language", language)
        answer = client.post("/models/poet-large/smoke", data={"csrf_token": token(client)})
        made = ledger.runs.newest(1)[0]
        assert answer.status_code == 303 and answer.location.endswith(f"/runs/{made.id}")
        assert list(made.models) == ["poet-large"] and made.sampling["max_new_tokens"] <= 64
        assert ledger.runs.prompts(made.id)[0].text == greeting
    assert client.post("/models/nobody/smoke", data={"csrf_token": token(client)}).status_code == 404


def test_large_numbers_are_short() -> None:
    assert [count_words(number) for number in (12, 1_500, 134_500_000, 7e9)] == ["12", "1.5k", "134M", "7B"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_address_that_is_none_is_told_in_the_visitors_language(client: FlaskClient, language: str) -> None:
    headers = {"Accept-Language": language}
    gone, wrong = client.get("/nothing", headers=headers), client.get("/language/en", headers=headers)
    assert gone.status_code == 404 and TEXTS["error.http.404"][language] in gone.text
    assert wrong.status_code == 405 and TEXTS["error.http.405"][language] in wrong.text
