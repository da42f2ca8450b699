"""A file of prompts on its way in, over real HTTP: streamed by the command line and by the form, or refused whole."""

import http.client
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import func, select
from werkzeug.serving import make_server

from tasks.__main__ import main
from tasks.commands import client as remote
from tasks.ledger import Ledger
from tasks.ledger.submission import PIECE
from tasks.ledger.tables import chunk, prompt, run
from tasks.settings import Settings
from tasks.states import RunKind
from web import create_app
from web.app import MAX_FILE_BYTES

FILE = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def app(settings: Settings) -> Flask:
    return create_app(settings)


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()


def rows(ledger: Ledger) -> int:
    with ledger.database.read() as connection:
        return sum(connection.execute(select(func.count()).select_from(t)).scalar_one() for t in (run, prompt, chunk))


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no worker here: what follows the submission would never end."""
    monkeypatch.setattr(remote, "_follow", lambda url: None)


@pytest.mark.usefixtures("no_waiting")
def test_the_command_line_streams_a_file(url: str, ledger: Ledger, tmp_path: Path) -> None:
    number = 2 * PIECE + 1
    file = tmp_path / "诗.txt"
    file.write_text("".join(f"写一首诗，第{i}首\n" for i in range(number)), encoding="utf-8")
    done = CliRunner().invoke(main, ["run", str(file), "--url", url, "--models", "poet-small", "--samples", "2"])
    assert done.exit_code == 0, done.output
    stored = ledger.runs.newest()[0]
    assert stored.id in done.output
    assert (stored.prompts, stored.title, stored.kind, stored.samples) == (number, "诗.txt", RunKind.BULK, 2)
    assert list(stored.models) == ["poet-small"] and stored.counts.total == 2 * number
    assert ledger.runs.prompts(stored.id, number - 1)[0].text == f"写一首诗，第{number - 1}首"


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (b"ok\nb\x00d\n", [], "bad.txt, line 2: It has a NUL"),
        ("好\n".encode() + "好".encode("gbk"), [], "bad.txt, line 2: not UTF-8"),
        (b"", [], "bad.txt is empty"),
        (b"x\n" * 300_000, ["--models", "nobody"], "There is no model 'nobody'"),
    ],
)
def test_the_command_line_says_what_is_wrong_and_sends_nothing(
    url: str, ledger: Ledger, tmp_path: Path, content: bytes, options: list[str], problem: str
) -> None:
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    done = CliRunner().invoke(main, ["run", str(file), "--url", url, *options])
    assert done.exit_code != 0 and problem in done.output and len(done.output.splitlines()) == 1
    assert rows(ledger) == 0


def test_an_error_far_into_a_file_leaves_nothing(app: Flask, ledger: Ledger) -> None:
    content = b"x\n" * (2 * PIECE) + b"\x00\n"
    answer = app.test_client().post("/api/runs/file?name=p.txt", data=content, headers=FILE)
    assert answer.status_code == 422
    assert answer.json and answer.json["error"]["message"].startswith(f"p.txt, line {2 * PIECE + 1}: ")
    assert rows(ledger) == 0


def test_a_client_that_goes_away_leaves_nothing(url: str, ledger: Ledger) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.putrequest("POST", "/api/runs/file")
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", str(10_000_000))
    connection.endheaders(b"a prompt of some length\n" * (4 * PIECE))
    connection.close()
    other = urllib.request.Request(f"{url}/api/runs/file", data=b"a prompt\n", headers=FILE)
    with urllib.request.urlopen(other) as accepted:
        assert accepted.status == 202
    assert [run.prompts for run in ledger.runs.newest()] == [1] and ledger.runs.total() == 1


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_no_file_is_refused(app: Flask, ledger: Ledger) -> None:
    client = app.test_client()
    assert client.post("/api/runs/file", data=b"x", content_type="text/plain").status_code == 415
    assert client.post("/api/runs/file?samples=99", data=b"x", headers=FILE).status_code == 422
    too_long = {"CONTENT_LENGTH": str(MAX_FILE_BYTES + 1)}
    assert client.post("/api/runs/file", data=b"x", headers=FILE, environ_overrides=too_long).status_code == 413
    assert rows(ledger) == 0


def test_a_key_makes_one_run_of_a_file(app: Flask, ledger: Ledger) -> None:
    client = app.test_client()
    key = FILE | {"Idempotency-Key": "k"}
    first = client.post("/api/runs/file", data=b"a\nb\n", headers=key)
    assert first.status_code == 202 and client.post("/api/runs/file", data=b"a\nb\n", headers=key).json == first.json
    assert client.post("/api/runs/file", data=b"a\nc\n", headers=key).status_code == 409
    assert ledger.runs.total() == 1
