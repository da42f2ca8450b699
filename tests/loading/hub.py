"""A hub of models on this machine: what huggingface_hub asks of a real one to find and download a repository."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 2**14


class Hub(ThreadingHTTPServer):
    """Serves the files of one folder as the repository ``name``; ``pause`` seconds after each piece of a file."""

    daemon_threads = True

    def __init__(self, folder: Path, name: str, pause: float = 0.0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.name, self.pause = folder, name, pause
        self.sent: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(folder: Path, name: str, pause: float = 0.0) -> Iterator[Hub]:
    hub = Hub(folder, name, pause)
    thread = threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        name = self.server.name
        for prefix in (f"/api/models/{name}/revision/", f"/api/models/{name}/tree/", f"/{name}/resolve/"):
            if path.startswith(prefix):
                revision, _, file = path.removeprefix(prefix).partition("/")
                if revision not in ("main", COMMIT):
                    return self._fail("RevisionNotFound")
                if "/resolve/" in prefix:
                    return self._send_file(file, with_body)
                return self._send_json(self._files() if "/tree/" in prefix else self._model())
        if path == f"/api/models/{name}":
            return self._send_json(self._model())
        return self._fail("RepoNotFound")

    def _model(self) -> dict[str, object]:
        siblings = [{"rfilename": file["path"], "size": file["size"], "blobId": file["oid"]} for file in self._files()]
        return {"id": self.server.name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}

    def _files(self) -> list[dict[str, object]]:
        paths = sorted(path for path in self.server.folder.iterdir() if path.is_file())
        return [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _etag(path)} for path in paths]

    def _send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, name: str, with_body: bool) -> None:
        path = self.server.folder / name
        if not path.is_file():
            return self._fail("EntryNotFound")
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.send_header("ETag", f'"{_etag(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if not with_body:
            return None
        self.server.sent.append(name)
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                self.wfile.write(piece)
                time.sleep(self.server.pause)

    def _fail(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is written of requests."""


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
