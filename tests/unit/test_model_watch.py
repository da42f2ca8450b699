"""What `up` says of its workers: of those that it started itself, not of those of another day."""

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from tasks.host.model_watch import ModelWatch
from tasks.ledger import Ledger
from tasks.ledger.records import Worker
from tasks.states import WorkerState
from tests.clock import pass_time


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def register(ledger: Ledger, id: str, state: WorkerState) -> None:
    ledger.workers.register(Worker(id, "a", state, socket.gethostname(), 1, "cpu", "", "", 1, load_seconds=2.0))


@pytest.mark.parametrize("state", [WorkerState.FAILED, WorkerState.READY])
def test_a_worker_of_before_makes_no_model_ready_or_failed(
    ledger: Ledger, url: str, capsys: pytest.CaptureFixture[str], state: WorkerState
) -> None:
    register(ledger, "old", state)
    pass_time(ledger, 1.0)
    watch = ModelWatch(ledger, ["a"], url)
    watch.tell()
    register(ledger, "new", WorkerState.LOADING)
    watch.tell()
    assert "ready" not in capsys.readouterr().err
    ledger.workers.beat("new", state=WorkerState.READY)
    watch.tell()
    said = capsys.readouterr().err
    assert "a: ready after 2.0 s" in said and f"open {url}\n" in said
