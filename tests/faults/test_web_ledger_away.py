"""What people and programs see over HTTP while PostgreSQL is down: gunicorn as it runs in production."""

import http.client
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from sqlalchemy import func, select

from tasks.ledger import Ledger
from tasks.ledger.submission import ABANDONED_SECONDS, PIECE
from tasks.ledger.tables import chunk, prompt, run
from tests.clock import pass_time
from tests.faults.deployment import MODEL, Scene, Web
from tests.faults.processes import until
from tests.postgres import Cluster

BOUND_SECONDS = 7.0  # 5 s of waiting, and some for two busy cores
PAGES = ("/", "/batches", "/models", "/benchmark", "/report", "/runs/{run}", "/report/{run}", "/report/{run}.md")
CALLS = ("/api/runs/{run}", "/api/runs/{run}/completions", "/api/models", "/api/workers", "/readyz")


def get(web: Web, path: str) -> tuple[int, str | None]:
    """Status and Retry-After of an answer that comes in time."""
    asked = time.monotonic()
    try:
        with urllib.request.urlopen(web.url + path, timeout=30) as response:
            found = response.status, response.headers["Retry-After"]
    except urllib.error.HTTPError as error:
        found = error.code, error.headers["Retry-After"]
    assert time.monotonic() - asked < BOUND_SECONDS, path
    return found


class Submission(threading.Thread):
    """A large file of prompts that the web has, on its way into the ledger; ``status`` is what the web then answers."""

    def __init__(self, web: Web, lines: int):
        super().__init__()
        self.web, self.status, self.retry_after = web, 0, None
        upload = self._post("/api/uploads", b"a prompt of some length\n" * lines, "application/octet-stream")
        self.body = json.dumps({"upload": json.load(upload)["id"], "models": [MODEL]}).encode()

    def run(self) -> None:
        answer = self._post("/api/runs", self.body, "application/json")
        self.status, self.retry_after = answer.status, answer.headers["Retry-After"]

    def _post(self, path: str, body: bytes, kind: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.web.url).netloc, timeout=60)
        connection.request("POST", path, body, {"Content-Type": kind})
        return connection.getresponse()


def rows(ledger: Ledger) -> list[int]:
    """How many runs, prompts and chunks there are, sealed or not."""
    with ledger.database.read() as connection:
        counts = [select(func.count()).select_from(table) for table in (run, prompt, chunk)]
        return [connection.execute(query).scalar_one() for query in counts]


def test_web_while_postgresql_is_down(own_cluster: Cluster, tmp_path: Path) -> None:
    """Fault: PostgreSQL is gone while people look and submit. Injection: an immediate stop, in the middle of a file.

    Must hold: every page and call answers 503 with Retry-After in bounded time; after a start all of it works again by
    itself, and of the file nothing is seen nor, when it is taken for abandoned, left.
    """
    scene = Scene(tmp_path, own_cluster.url)
    try:
        web = scene.web()
        kept = scene.submit(3)
        paths = [path.format(run=kept.id) for path in (*PAGES, *CALLS)]
        assert [get(web, path)[0] for path in paths] == [200] * len(paths)
        before = rows(scene.ledger)
        submission = Submission(web, 60 * PIECE)
        submission.start()
        until(lambda: rows(scene.ledger)[1] >= before[1] + PIECE, 20, "a piece of the file is in the ledger")

        own_cluster.stop("immediate")
        asked = time.monotonic()
        submission.join()
        assert (submission.status, submission.retry_after) == (503, "5")
        assert scene.post(web, 3)[0] == 503
        assert time.monotonic() - asked < 2 * BOUND_SECONDS
        assert {path: get(web, path) for path in paths} == dict.fromkeys(paths, (503, "5"))
        assert get(web, "/healthz")[0] == 200

        own_cluster.start()
        assert [get(web, path)[0] for path in paths] == [200] * len(paths)
        assert scene.post(web, 3)[0] == 202
        assert scene.ledger.runs.total() == 2
        pass_time(scene.ledger, ABANDONED_SECONDS + 1)
        assert scene.ledger.runs.discard_abandoned() <= 1
        assert rows(scene.ledger) == [2, 6, before[2] + len(range(0, 3, scene.service.chunk_size(MODEL, 1)))]
        scene.workers(1)
        assert scene.drained().outcomes["done"] == 6
    finally:
        scene.end()
        print(scene.logs())
