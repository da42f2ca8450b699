"""Run control from pages, API and command line; and what they say while the ledger is away."""

import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from tasks.__main__ import main
from tasks.conversation import NewPrompt
from tasks.errors import NotFound
from tasks.ledger import Ledger
from tasks.ledger.database import BUSY_SECONDS
from tasks.ledger.records import Claim, Completion, Environment, NewRun
from tasks.settings import Settings
from tasks.states import FinishReason, RunAction, RunKind, RunState
from web import create_app
from web.language import TEXTS

JSON = {"Content-Type": "application/json"}
ALL = {RunKind.ARENA: 9, RunKind.BULK: 9}


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def run_id(ledger: Ledger) -> str:
    """A bulk run of two chunks."""
    prompts = [NewPrompt("甲"), NewPrompt("乙")]
    return ledger.runs.submit(NewRun(RunKind.BULK, "o", {"poet-small": 1}, {}), prompts)[0].id


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    """The address of a web server that really listens."""
    server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def take(ledger: Ledger) -> list[Claim]:
    claims = [ledger.chunks.claim(item.chunk, "w") for item in ledger.outbox.dispatch("poet-small", ALL)]
    return [claim for claim in claims if claim]


def fail_all(ledger: Ledger) -> None:
    for claim in take(ledger):
        rows = [Completion(claim.run, claim.model, i, s, "", FinishReason.ERROR, "broken") for i, s in claim.missing]
        assert ledger.chunks.write(claim, rows, Environment("e", {}), last=True)


def post(client: FlaskClient, path: str, body: Any = None) -> Any:
    return client.post(f"/api/runs/{path}", json=body if body is not None else {})


def test_the_api_pauses_resumes_and_cancels(client: FlaskClient, ledger: Ledger, run_id: str) -> None:
    assert post(client, f"{run_id}/pause").json["state"] == "paused"
    assert take(ledger) == []
    assert post(client, f"{run_id}/resume").json["state"] == "pending"
    assert len(take(ledger)) == 2
    cancelled = post(client, f"{run_id}/cancel").json
    assert cancelled["state"] == "cancelled" and cancelled["counts"]["cancelled"] == 2
    for action in (RunAction.PAUSE, RunAction.RESUME, RunAction.RETRY):
        refused = post(client, f"{run_id}/{action}")
        assert (refused.status_code == 409 and "cancelled" in refused.text) or "ended" in refused.text
    assert post(client, "none/pause").status_code == 404
    assert client.post(f"/api/runs/{run_id}/cancel").status_code == 415


def test_what_failed_is_done_again(client: FlaskClient, ledger: Ledger, run_id: str) -> None:
    fail_all(ledger)
    assert ledger.runs.get(run_id).counts.failed == 2
    retried = post(client, f"{run_id}/retry").json
    assert (retried["state"], retried["counts"]["failed"], retried["counts"]["pending"]) == ("pending", 0, 2)
    claims = take(ledger)
    assert [(claim.attempt, claim.missing) for claim in claims] == [(1, ((0, 0), (1, 0)))]


def test_a_deleted_run_is_gone(client: FlaskClient, ledger: Ledger, run_id: str) -> None:
    held = take(ledger)[0]
    assert client.delete(f"/api/runs/{run_id}").status_code == 204
    assert client.get(f"/api/runs/{run_id}").status_code == client.delete(f"/api/runs/{run_id}").status_code == 404
    row = Completion(held.run, held.model, 0, 0, "late", FinishReason.STOP)
    assert not ledger.chunks.write(held, [row], Environment("e", {}))
    with pytest.raises(NotFound):
        ledger.runs.get(run_id)


def test_a_stream_ends_with_its_run(client: FlaskClient, ledger: Ledger, run_id: str) -> None:
    stream = client.get(f"/api/runs/{run_id}/events", buffered=False)
    events = iter(stream.response)
    assert b"pending" in next(event for event in events if event)
    ledger.control.delete(run_id)
    assert b"event: end" not in b"".join(events)
    assert client.get(f"/api/runs/{run_id}/events").status_code == 404


@pytest.mark.parametrize("priority", [10, -10, 1.5, "1", True, None])
def test_a_priority_is_a_small_number(client: FlaskClient, run_id: str, priority: Any) -> None:
    refused = post(client, f"{run_id}/priority", {"priority": priority})
    assert refused.status_code == 422 and refused.json["error"]["field"] == "priority"
    assert post(client, f"{run_id}/priority", {"priority": -9}).json["priority"] == -9
    assert post(client, f"{run_id}/priority", {"priority": 2.0}).json["priority"] == 2


@pytest.mark.parametrize("deadline", [0, -1, "5", True, 1e9, float("nan")])
def test_a_deadline_is_a_number_of_seconds(client: FlaskClient, ledger: Ledger, deadline: Any) -> None:
    refused = client.post("/api/runs", json={"prompts": ["x"], "deadline": deadline})
    assert refused.status_code == 422 and refused.json["error"]["field"] == "deadline"
    made = client.post("/api/runs", json={"prompts": ["x"], "deadline": 2.5}).json["id"]
    assert ledger.runs.get(made).deadline == 2.5


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_pages_have_buttons_that_need_no_script(
    client: FlaskClient, ledger: Ledger, run_id: str, language: str
) -> None:
    client.set_cookie("language", language)
    token = re.findall(r'name="csrf_token" value="([^"]+)"', client.get("/batches").text)[0]
    for path in ("/batches", f"/runs/{run_id}"):
        page = client.get(path).text
        assert f'action="/runs/{run_id}/pause"' in page and TEXTS["run.pause"][language] in page
    assert client.post(f"/runs/{run_id}/pause").status_code == 400  # no token
    assert ledger.runs.get(run_id).state is RunState.PENDING
    pressed = client.post(f"/runs/{run_id}/pause", data={"csrf_token": token, "back": "batches"})
    assert pressed.status_code == 303 and pressed.location.endswith("/batches")
    assert ledger.runs.get(run_id).state is RunState.PAUSED
    page = client.get(f"/runs/{run_id}").text
    assert TEXTS["run.state.paused"][language] in page and f'action="/runs/{run_id}/resume"' in page
    client.post(f"/runs/{run_id}/priority", data={"csrf_token": token, "priority": "1"})
    assert ledger.runs.get(run_id).priority == 1
    assert client.post(f"/runs/{run_id}/nonsense", data={"csrf_token": token}).status_code in (404, 405)
    assert client.post(f"/runs/{run_id}/delete", data={"csrf_token": token}).location.endswith("/batches")
    assert client.get(f"/runs/{run_id}").status_code == 404


def test_the_command_line_controls_a_run(url: str, ledger: Ledger, run_id: str) -> None:
    def call(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, [words[0], run_id, *words[1:], "--url", url])
        return done.exit_code, done.output

    assert call("pause") == (
        0,
        f"run {run_id} is paused, priority 0: 2 total, 0 done, 0 failed, 0 cancelled, 2 pending\n",
    )
    assert "is pending" in call("resume")[1]
    assert "priority -2" in call("priority", "-2")[1]
    fail_all(ledger)
    assert "is pending" in call("retry")[1]
    assert "is cancelled" in call("cancel")[1]
    code, said = call("pause")
    assert code != 0 and "has ended" in said
    assert call("delete") == (0, f"run {run_id} is deleted\n")
    code, said = call("delete")
    assert code != 0 and "no run" in said


def test_while_the_ledger_is_away_everybody_is_told_when_to_come_back(
    client: FlaskClient, settings: Settings, run_id: str
) -> None:
    token = re.findall(r'name="csrf_token" value="([^"]+)"', client.get("/batches").text)[0]
    other = sqlite3.connect(settings.database_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for send in (
        lambda: client.post("/api/runs", json={"prompts": ["x"]}),
        lambda: client.post(f"/runs/{run_id}/pause", data={"csrf_token": token}),
    ):
        asked = time.monotonic()
        answer = send()
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert time.monotonic() - asked < BUSY_SECONDS + 2
    assert client.get(f"/api/runs/{run_id}").json["state"] == "pending"  # reading goes on
    other.execute("ROLLBACK")
    assert client.post("/api/runs", json={"prompts": ["x"]}).status_code == 202
