"""kill -9 of every process at once, while a file comes in, while it is answered, and while results go out."""

import contextlib
import csv
import http.client
import io
import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import OpenAI

from tasks.errors import ConfigurationError
from tasks.host.redis_server import find_binary, free_port
from tests.conftest import require
from tests.system.conftest import Running, start, wait_until_ready

NUMBER = 1500
FILE = {"Content-Type": "application/octet-stream"}


class Mortal:
    """An `up` that is killed with all its children, and started again over the same data."""

    def __init__(self, data: Path):
        self.data, self.port = data, free_port()
        self.up = self.start()

    def start(self) -> Running:
        up = Running(f"http://127.0.0.1:{self.port}", self.data, start(self.data, "--port", str(self.port)))
        wait_until_ready(up)
        return up

    def die_and_rise(self) -> None:
        everybody = _with_descendants(self.up.process.pid)
        for pid in everybody:
            with contextlib.suppress(ProcessLookupError):  # those whose parent ends are told to end, too
                os.kill(pid, signal.SIGKILL)
        self.up.process.wait(30)
        while any(map(_parent, everybody)):  # the port and the data are theirs until then
            time.sleep(0.05)
        self.up = self.start()


def _with_descendants(pid: int) -> list[int]:
    """A process, its children and theirs, those that were started first before the others."""
    family = [pid]
    others = {int(folder.name): _parent(int(folder.name)) for folder in Path("/proc").glob("[0-9]*")}
    for member in family:
        family += [other for other, parent in others.items() if parent == member]
    return family


def _parent(pid: int) -> int | None:
    """The parent of a process; None for one that has ended, even if nobody has waited for it."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    try:
        find_binary()
    except ConfigurationError:
        require(False, "redis-server")
    made = Mortal(tmp_path)
    yield made
    made.up.process.send_signal(signal.SIGTERM)
    made.up.process.wait(60)


def table() -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "问题"])
    writer.writerows((f"q{i}", f"写一首诗，\n第{i}首") for i in range(NUMBER))
    return out.getvalue().encode("gb18030")


def send(url: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url + path, body, headers), timeout=60) as response:
        return json.load(response)


def test_nothing_is_lost_or_doubled(mortal: Mortal) -> None:
    url = mortal.up.url
    half = http.client.HTTPConnection(urlsplit(url).netloc)
    half.putrequest("POST", "/api/uploads?name=half.csv")
    half.putheader("Content-Type", "application/octet-stream")
    half.putheader("Content-Length", str(2 * len(table())))
    half.endheaders(table())
    mortal.die_and_rise()
    half.close()
    assert mortal.up.call("/api/runs")[1]["runs"] == []

    stored = send(url, "/api/uploads?name=poems.csv", table(), FILE)
    assert stored["preview"]["prompts"] == NUMBER
    mortal.die_and_rise()
    status, made = mortal.up.call("/api/runs", {"upload": stored["id"]})
    assert status == 202
    mortal.up.wait_until_some_are_done(made["id"])
    mortal.die_and_rise()
    assert mortal.up.wait(made["id"], 180)["counts"] == {"total": 2 * NUMBER, "done": 2 * NUMBER} | dict.fromkeys(
        ("failed", "cancelled", "pending"), 0
    )

    export = f"{url}/api/runs/{made['id']}/export?format=jsonl"
    with urllib.request.urlopen(export, timeout=60) as response:
        response.read(100)
        mortal.die_and_rise()
        with contextlib.suppress(http.client.HTTPException, OSError):  # what was on its way may still arrive whole
            response.read()
    with urllib.request.urlopen(export, timeout=60) as response:
        lines = [json.loads(line) for line in response]
    keys = [(line["model"], line["custom_id"]) for line in lines if line["type"] == "completion"]
    assert len(keys) == len(set(keys)) == 2 * NUMBER


def test_a_batch_survives(mortal: Mortal) -> None:
    client = OpenAI(base_url=f"{mortal.up.url}/v1", api_key="none", max_retries=0)
    body = {"model": "all", "messages": [{"role": "user", "content": "春江花月夜"}], "max_tokens": 8}
    line = {"method": "POST", "url": "/v1/chat/completions"}
    lines = [json.dumps(line | {"custom_id": f"q{i}", "body": body | {"seed": i}}) for i in range(NUMBER)]
    file = client.files.create(file=("b.jsonl", "\n".join(lines).encode()), purpose="batch")
    mortal.die_and_rise()
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    mortal.die_and_rise()
    deadline = time.monotonic() + 180
    while (now := client.batches.retrieve(batch.id)).status != "completed":
        assert time.monotonic() < deadline and now.status in ("in_progress", "finalizing"), now
        time.sleep(0.2)
    assert now.request_counts and now.request_counts.completed == now.request_counts.total == 2 * NUMBER
    assert now.output_file_id and now.error_file_id is None
    answered = [json.loads(text) for text in client.files.content(now.output_file_id).text.splitlines()]
    keys = {(one["custom_id"], one["response"]["body"]["model"]) for one in answered}
    assert len(answered) == len(keys) == 2 * NUMBER
