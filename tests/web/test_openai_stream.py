"""Streams of OpenAI's interface over a server that really listens, with a worker played by the test."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from werkzeug.serving import make_server

from tasks.ledger import Ledger
from tasks.ledger.records import Run
from tasks.queue.live import Live, LiveEvent
from tasks.settings import Settings
from tasks.states import RunState
from tests.web import filled
from web import create_app

SECONDS = 10.0


@pytest.fixture
def port(redis_settings: Settings, ledger: Ledger) -> Iterator[int]:
    filled.register(ledger, "poet-small")
    server = make_server("127.0.0.1", 0, create_app(redis_settings), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.port
    server.shutdown()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(port: int, ledger: Ledger, stream: bool) -> tuple[http.client.HTTPConnection, Run]:
    """A request that is being answered, and its run."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    body = {"model": "poet-small", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    until(ledger.runs.total)
    return connection, ledger.runs.newest()[0]


def test_text_is_passed_on_before_the_answer_has_ended(port: int, redis_settings: Settings, ledger: Ledger) -> None:
    connection, run = ask(port, ledger, stream=True)
    live = Live(redis_settings.redis_url)
    live.publish(run.id, [LiveEvent("", "poet-small", 0, 0, 1, "", "hm"), LiveEvent("", "poet-small", 0, 0, 1, "您")])
    response = connection.getresponse()
    deltas = []
    while len(deltas) < 2:
        said = response.readline()
        if said.startswith(b"data: "):
            deltas.append(json.loads(said[6:])["choices"][0]["delta"])
    assert deltas == [{"role": "assistant", "reasoning_content": "hm"}, {"content": "您"}]
    assert ledger.runs.get(run.id).counts.pending == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_cancels_its_run(port: int, ledger: Ledger, stream: bool) -> None:
    connection, run = ask(port, ledger, stream)
    assert ledger.runs.get(run.id).state is not RunState.CANCELLED
    connection.close()
    until(lambda: ledger.runs.get(run.id).state is RunState.CANCELLED)


def test_a_run_that_somebody_else_cancels_ends_its_stream_with_an_error(port: int, ledger: Ledger) -> None:
    connection, run = ask(port, ledger, stream=True)
    ledger.control.cancel(run.id)
    *_, last = [said for said in connection.getresponse().read().split(b"\n\n") if said]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "cancelled"
