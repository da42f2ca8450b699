"""A small server that speaks the API's addresses and notes what it was sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

READING = {"format": "csv", "encoding": "gb18030", "separator": ";", "columns": {"prompt": "问题"}}
PREVIEW: dict[str, Any] = {
    "reading": READING,
    "guessed": ["format", "columns"],
    "columns": ["问题", "类别"],
    "first": [{"prompt": "写一首\n关于春天的诗"}, {"messages": [{"role": "user", "content": "你好"}]}],
    "prompts": 2,
    "problem_count": 0,
    "problems": [],
    "notes": ["The column 类别 is a variable."],
    "lengths": {"10": 2},
}
ESTIMATE = {
    "low": 90.0,
    "high": 240.0,
    "models": [
        {"name": "a", "low": 90.0, "high": 240.0, "reason": None, "wait": 30.0, "load": 0.0, "too_long": 0},
        {
            "name": "b",
            "low": None,
            "high": None,
            "reason": "not measured yet; ask it one prompt",
            "wait": 0.0,
            "load": 0.0,
            "too_long": 1,
        },
    ],
}


@dataclass(frozen=True)
class Sent:
    """A request as it came: ``body`` is JSON where it was sent as such."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any


@dataclass(frozen=True)
class Reply:
    """``body`` is bytes, or what becomes JSON. With ``said`` the length that is told is another than it is."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    said: int | None = None


@dataclass
class ApiServer:
    """Answers ``METHOD path`` by what is in ``answers``; a list is answered one by one, the last again and again."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)

    def of(self, what: str) -> list[Sent]:
        return [one for one in self.sent if f"{one.method} {one.path}" == what]

    def reply(self, sent: Sent) -> Reply:
        self.sent.append(sent)
        found = self.answers.get(f"{sent.method} {sent.path}")
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if found is None:
            return Reply({"error": {"code": "not_found", "message": f"There is no {sent.path}."}}, 404)
        return found if isinstance(found, Reply) else Reply(found)


def error(message: str, status: int = 422) -> Reply:
    return Reply({"error": {"code": "invalid", "message": message}}, status)


def run_state(state: str, done: int, failed: int = 0, **more: Any) -> dict[str, Any]:
    """A run of two models, ``done`` and ``failed`` of each."""
    total = {"total": 4, "done": done, "failed": failed, "cancelled": 0, "pending": 4 - done - failed}
    models = [{"name": name, "counts": total, "waits": None} for name in "ab"]
    counts = {name: 2 * number for name, number in total.items()}
    return {"id": "r1", "state": state, "priority": 0, "counts": counts, "models": models, **more}


def completion(number: int, **more: Any) -> dict[str, Any]:
    phases = {"ttft": 0.1 * number, "tpot": 0.01, "characters_per_second": 100.0}
    return {"finish_reason": "stop", "error": None, "origin": "computed", "phases": phases, **more}


@contextmanager
def serving() -> Iterator[ApiServer]:
    api = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            split = urlsplit(self.path)
            body: Any = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Type") == "application/json":
                body = json.loads(body)
            reply = api.reply(Sent(self.command, split.path, parse_qs(split.query), body))
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) if reply.said is None else reply.said))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = handle_one  # noqa: N815 (the names that http.server calls)

        def log_message(self, *_: Any) -> None:
            """Nothing: a test's own output is enough."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
