"""A small server of OpenAI's interface that behaves as it is told, request by request.

As a program, ``python -m tests.backends.told_server PORT``, it is a server to be started by a worker.
"""

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "told"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


@dataclass
class Asked:
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def chat(text: str = "", reason: str | None = None, **delta: str) -> dict[str, Any]:
    """One event of a chat's stream."""
    return {"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": reason}]}


def event(said: Any) -> bytes:
    return f"data: {said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)}\n\n".encode()


def whole(*texts: str, reason: str = "stop", usage: Any = USAGE) -> bytes:
    """A complete chat stream of these texts."""
    said = [chat(text) for text in texts]
    end = [chat(reason=reason), *([{"choices": [], "usage": usage}] if usage else []), "[DONE]"]
    return b"".join(map(event, [*said, *end]))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ToldServer"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self.server.looked.append(self.path)
        status, headers, body = self.server.pages.get(self.path, (404, {}, b"{}"))
        self.reply(status, body, headers)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        behaviour = self.server.behaviours.popleft() if self.server.behaviours else self.server.otherwise
        try:
            behaviour(self)
        except OSError:
            self.server.hung_up.set()
            self.close_connection = True

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def send(self, chunk: bytes) -> None:
        self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        self.wfile.flush()

    def finish_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def wait_for_hang_up(self, seconds: float) -> None:
        """Until the client closes the connection, or so long."""
        self.connection.settimeout(seconds)
        if self.connection.recv(1) == b"":
            raise ConnectionResetError


Behaviour = Callable[[Handler], None]


def streams(*chunks: bytes, pause: float = 0.0) -> Behaviour:
    """A stream in just these chunks."""

    def behave(handler: Handler) -> None:
        handler.begin()
        for chunk in chunks:
            handler.send(chunk)
            time.sleep(pause)
        handler.finish_stream()

    return behave


def breaks_off(*chunks: bytes) -> Behaviour:
    """A stream whose connection ends in the middle."""

    def behave(handler: Handler) -> None:
        handler.begin()
        for chunk in chunks:
            handler.send(chunk)
        handler.close_connection = True

    return behave


def replies(status: int, said: Any, headers: dict[str, str] | None = None) -> Behaviour:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return lambda handler: handler.reply(status, body, headers)


def hangs(*chunks: bytes, seconds: float = 5.0) -> Behaviour:
    """Sends these chunks, then nothing, until the client hangs up."""

    def behave(handler: Handler) -> None:
        if chunks:
            handler.begin()
        for chunk in chunks:
            handler.send(chunk)
        handler.wait_for_hang_up(seconds)

    return behave


def echoes_key(handler: Handler) -> None:
    handler.reply(401, json.dumps({"error": {"message": f"Bad key {handler.headers['authorization']}"}}).encode())


@dataclass(eq=False)
class ToldServer(ThreadingHTTPServer):
    """``behaviours`` are used up one a request; ``otherwise`` is what it does after them."""

    port: int = 0
    host: str = "127.0.0.1"
    daemon_threads = True
    request_queue_size = 64
    behaviours: deque[Behaviour] = field(default_factory=deque)
    otherwise: Behaviour = field(default_factory=lambda: streams(whole("Hello", ", wor", "ld")))
    asked: list[Asked] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    hung_up: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__((self.host, self.port), Handler)
        self.port = self.server_address[1]
        self.lists(MODEL)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what many tests are about; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def lists(self, *names: str, **more: Any) -> None:
        data = [{"id": name, **more} for name in names]
        self.pages["/v1/models"] = (200, {}, json.dumps({"data": data}).encode())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def does(self, *behaviours: Behaviour) -> None:
        self.behaviours.extend(behaviours)


@contextmanager
def serving() -> Iterator[ToldServer]:
    server = ToldServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _tells_itself(handler: Handler) -> None:
    """Answers with the facts of this process, slowly where asked; ``die`` ends it in the middle of its answer."""
    said = handler.server.asked[-1].body["messages"][-1]["content"]
    facts = {
        "affinity": sorted(os.sched_getaffinity(0)),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "pid": os.getpid(),
        "argv": sys.argv[1:],
    }
    handler.begin()
    words: Iterable[str] = f"{said} is answered word by word".split() if said != "facts" else [json.dumps(facts)]
    for word in words:
        handler.send(event(chat(word + " ")))
        if said == "die":
            os._exit(7)
        time.sleep(0.05)
    handler.send(whole())
    handler.finish_stream()


def main() -> None:
    port, *options = sys.argv[1:]
    print("the told server begins", flush=True)
    if "broken" in options:
        print("ValueError: these weights are damaged", file=sys.stderr, flush=True)
        raise SystemExit(9)
    if "once" in options:  # starts a single time
        flag = options[options.index("once") + 1]
        if os.path.exists(flag):
            raise SystemExit(5)
        with open(flag, "w", encoding="ascii"):
            print("first start", flush=True)
    host = "0.0.0.0" if "everywhere" in options else "127.0.0.1"
    ToldServer(port=int(port), host=host, otherwise=_tells_itself).serve_forever()


if __name__ == "__main__":
    main()
