"""Pages and API without workers and without Redis: what is sent is stored, what is wrong is said."""

import json
import re
import threading
from typing import Any

import pytest
from flask.testing import FlaskClient

from tasks.ledger import Ledger
from tasks.ledger.records import Completion, Environment
from tasks.settings import Settings
from tasks.states import FinishReason, RunKind
from web import create_app, events
from web.language import TEXTS

GOOD = {"prompts": ["写一首关于春天的诗"]}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def post(client: FlaskClient, body: Any, headers: dict[str, str] | None = None) -> Any:
    data = body if isinstance(body, str) else json.dumps(body)
    return client.post("/api/runs", data=data, headers=JSON | (headers or {}))


def token(client: FlaskClient, path: str = "/") -> str:
    return re.findall(r'name="csrf_token" value="([^"]+)"', client.get(path).text)[0]


@pytest.mark.parametrize("body", [b"not json", b"{", b'{"prompts": ["\xff"]}', b""])
def test_a_body_that_is_no_json_is_told_what_to_send(client: FlaskClient, body: bytes) -> None:
    answer = client.post("/api/runs", data=body, headers=JSON)
    assert answer.status_code == 400 and "not valid JSON; send an object" in answer.json["error"]["message"]


def test_a_run_is_committed_although_redis_is_away(client: FlaskClient, ledger: Ledger) -> None:
    answer = post(client, GOOD)
    assert answer.status_code == 202
    run = ledger.runs.get(answer.json["id"])
    assert run.counts.total == run.counts.pending == 2
    shown = client.get(f"/api/runs/{run.id}").json
    assert shown["counts"] == {"total": 2, "done": 0, "failed": 0, "cancelled": 0, "pending": 2}
    assert client.post(f"/api/runs/{run.id}/cancel", headers=JSON).json["state"] == "cancelled"
    assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ("{", 400, None),
        ([], 422, None),
        ({}, 422, "prompts"),
        ({"prompts": []}, 422, "prompts"),
        ({"prompts": "x"}, 422, "prompts"),
        ({"prompts": [1]}, 422, "prompts.0"),
        ({"prompts": ["x"], "messages": [{"role": "user", "content": "x"}]}, 422, "prompts"),
        ({"prompts": None}, 422, "prompts"),
        ({"messages": []}, 422, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 201}, 422, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 422, "messages"),
        ({"messages": [{"role": "bot", "content": "x"}]}, 422, "messages.0.role"),
        ({"prompts": ["ok", {"messages": [{"role": "me", "content": "x"}]}]}, 422, "prompts.1.messages.0.role"),
        ({"prompts": [{"messages": [{"role": "user", "content": 3}]}]}, 422, "prompts.0.messages.0.content"),
        ({"prompts": [{"prompt": "x", "messages": [{"role": "user", "content": "x"}]}]}, 422, "prompts.0"),
        ({"prompts": [{}]}, 422, "prompts.0"),
        ({"prompts": [{"promt": "x"}]}, 422, "prompts.0.promt"),
        ({"prompts": [{"prompt": "{{a}}", "variables": {"b": "x"}}]}, 422, "prompts.0"),
        ({"prompts": [{"prompt": "x", "variables": {"b": 1}}]}, 422, "prompts.0.variables.b"),
        ({"prompts": [{"prompt": "x", "follows": 0}]}, 422, "prompts.0.follows"),
        ({"prompts": [{"prompt": "x", "follows": True}]}, 422, "prompts.0.follows"),
        (
            {"prompts": [{"prompt": "x", "custom_id": "a"}, {"prompt": "y", "custom_id": "a"}]},
            422,
            "prompts.1.custom_id",
        ),
        ({"prompts": [{"prompt": "x", "custom_id": "a" * 513}]}, 422, "prompts.0.custom_id"),
        ({"prompts": [{"prompt": "x", "tags": ["a\x00"]}]}, 422, "prompts.0.tags.0"),
        ({"prompts": [{"prompt": "x", "checks": [{"kind": "equals"}]}]}, 422, "prompts.0.checks.0"),
        ({"prompts": [{"prompt": "x", "checks": [{"type": "a", "to": float("nan")}]}]}, 422, "prompts.0.checks.0"),
        ({"prompts": [{"prompt": "x", "checks": [{"type": "a", "to": "b\x00"}]}]}, 422, "prompts.0.checks.0"),
        ({"prompts": [{"prompt": "x", "checks": [{"type": "a", "to": "b" * 9000}]}]}, 422, "prompts.0.checks.0"),
        (
            {"prompts": [{"prompt": "x", "checks": [{"type": "a", "": [[[[[[[[1]]]]]]]]}]}]},
            422,
            "prompts.0.checks.0",
        ),
        (GOOD | {"system": "x" * 32_001}, 422, "system"),
        (GOOD | {"title": "x" * 201}, 422, "title"),
        (GOOD | {"models": ["nobody", 3]}, 422, "models"),
        (GOOD | {"samples": 1.5}, 422, "samples"),
        ({"prompts": ["ok", " "]}, 422, "prompts.1"),
        ({"prompts": ["a\x00b"]}, 422, "prompts.0"),
        ({"prompts": ["x" * 32_001]}, 422, "prompts.0"),
        ('{"prompts": ["\\ud800"]}', 422, "prompts.0"),
        (
            '{"prompts": ["ok", {"messages": [{"role": "user", "content": "\\uDC00"}]}]}',
            422,
            "prompts.1.messages.0.content",
        ),
        ('{"prompts": ["\\ud83d\\ude00", " "]}', 422, "prompts.1"),
        ('{"prompts": ["x"], "sampling": {"\\ud800": 1}}', 422, "sampling"),
        ('{"prompts": ["x"], "\\ud800": 1}', 422, None),
        ("[" * 100_000, 422, None),
        (GOOD | {"models": ["nobody"]}, 404, "models"),
        (GOOD | {"models": "poet-large"}, 422, "models"),
        (GOOD | {"sampling": {"temperature": 9}}, 422, "sampling.temperature"),
        (GOOD | {"sampling": {"heat": 1}}, 422, "sampling.heat"),
        (GOOD | {"sampling": 3}, 422, "sampling"),
        (GOOD | {"samples": 0}, 422, "samples"),
        (GOOD | {"samples": True}, 422, "samples"),
        (GOOD | {"kind": "huge"}, 422, "kind"),
        (GOOD | {"kind": []}, 422, "kind"),
        (GOOD | {"promts": []}, 422, "promts"),
    ],
)
def test_bad_input_is_a_clear_error_and_stores_nothing(
    client: FlaskClient, ledger: Ledger, body: Any, status: int, field: str | None
) -> None:
    answer = post(client, body)
    assert answer.status_code == status
    assert answer.json["error"].get("field") == field
    assert answer.json["error"]["message"] and answer.json["error"]["code"]
    assert ledger.runs.total() == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/runs/none", 404),
        ("GET", "/api/runs/none/completions", 404),
        ("GET", "/api/runs/none/events", 404),
        ("GET", "/api/none", 404),
        ("PUT", "/api/runs", 405),
        ("POST", "/api/runs", 415),
    ],
)
def test_errors_of_the_api_are_json(client: FlaskClient, method: str, path: str, status: int) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == status and "message" in answer.json["error"]


def test_numbers_far_out_of_range_are_no_server_error(client: FlaskClient) -> None:
    run = post(client, GOOD).json["id"]
    assert client.get(f"/api/runs/{run}/completions?after={'9' * 5000}.0.a").status_code == 422
    assert client.get(f"/runs/{run}?page={10**30}").status_code == 200


def test_a_stream_that_is_not_read_gives_its_place_back(client: FlaskClient) -> None:
    events_of = f"/api/runs/{post(client, GOOD).json['id']}/events"
    for _ in range(events.MAX_STREAMS + 1):
        answer = client.head(events_of)
        answer.close()
        assert answer.status_code == 200


def test_too_many_streams_are_told_when_to_come_back(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_open_streams", threading.BoundedSemaphore(1))
    events_of = f"/api/runs/{post(client, GOOD).json['id']}/events"
    held = client.get(events_of, buffered=False)
    refused = client.get(events_of)
    assert refused.status_code == 503 and refused.headers["Retry-After"]
    held.close()
    assert client.head(events_of).status_code == 200


def test_a_key_makes_one_run(client: FlaskClient, ledger: Ledger) -> None:
    key = {"Idempotency-Key": "k"}
    assert post(client, GOOD, key).json == post(client, GOOD, key).json
    assert post(client, GOOD | {"samples": 2}, key).status_code == 409
    assert ledger.runs.total() == 1


@pytest.mark.parametrize("path", ["/", "/batches", "/benchmark", "/report", "/models"])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_pages_answer_in_both_languages(client: FlaskClient, path: str, language: str) -> None:
    client.set_cookie("language", language)
    answer = client.get(path)
    assert answer.status_code == 200
    assert TEXTS["nav.models"][language] in answer.text
    assert "http://" not in re.sub(r'xmlns="[^"]+"', "", answer.text) and "//cdn" not in answer.text
    policy = answer.headers["Content-Security-Policy"]
    nonces = set(re.findall(r'nonce="([^"]+)"', answer.text))
    assert "'unsafe-inline'" not in policy.split("script-src")[1]
    assert all(f"'nonce-{nonce}'" in policy for nonce in nonces)


def test_a_form_without_its_token_is_refused(client: FlaskClient, ledger: Ledger) -> None:
    assert client.post("/", data={"prompt": "x"}).status_code == 400
    assert client.post("/batches", data={"prompts": "x"}).status_code == 400
    assert ledger.runs.total() == 0


def test_the_form_leads_to_the_run(client: FlaskClient, ledger: Ledger) -> None:
    form = {"prompt": "x", "models": "poet-small", "temperature": "0.5", "csrf_token": token(client)}
    answer = client.post("/", data=form)
    assert answer.status_code == 303
    run = ledger.runs.newest()[0]
    assert answer.location.endswith(run.id) and run.sampling["temperature"] == 0.5
    assert list(run.models) == ["poet-small"] and run.kind is RunKind.ARENA
    wrong = client.post("/", data=form | {"temperature": "hot"})
    assert wrong.status_code == 422 and "temperature" in wrong.text


def test_what_people_and_models_write_is_text(client: FlaskClient, ledger: Ledger) -> None:
    evil = "</script><script>alert(1)</script>"
    run = post(client, {"prompts": [evil]}).json["id"]
    item = ledger.outbox.dispatch("poet-large", {RunKind.ARENA: 9, RunKind.BULK: 9})[0]
    claim = ledger.chunks.claim(item.chunk, "w")
    assert claim
    row = Completion(run, "poet-large", 0, 0, evil, FinishReason.STOP, characters=len(evil))
    assert ledger.chunks.write(claim, [row], Environment("e", {"torch": evil}))
    for path in (f"/runs/{run}", f"/report/{run}", "/", "/batches"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
    assert client.get(f"/api/runs/{run}/completions").json["completions"][0]["text"] == evil


def test_the_language_switch_stays_on_this_site(client: FlaskClient) -> None:
    form = {"back": "//elsewhere.example/", "csrf_token": token(client)}
    answer = client.post("/language/en", data=form)
    assert answer.location == "/" and "language=en" in answer.headers["Set-Cookie"]


def test_every_text_is_there_in_both_languages() -> None:
    assert all(set(texts) == {"zh", "en"} and all(texts.values()) for texts in TEXTS.values())


def test_the_openapi_document_names_every_route(client: FlaskClient) -> None:
    described = set(client.get("/api/openapi.json").json["paths"])
    served_rules = client.application.url_map.iter_rules()
    rules = {re.sub(r"<(\w+)>", r"{\1}", str(rule)).replace("{run_id}", "{id}") for rule in served_rules}
    served = {rule for rule in rules if rule.startswith("/api/")} | {"/healthz", "/readyz"}
    assert described == served - {"/api/openapi.json"}
