"""Headless Chromium by its own protocol: opens a page, asks it for values, keeps what it complained about."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --disable-quic --lang=zh-CN --accept-lang=zh-CN --window-size=1200,1000 --remote-debugging-port=0"
)
PATIENCE_SECONDS = 30.0


class Page:
    """One tab."""

    def __init__(self, address: str):
        self.socket = websocket.create_connection(address, timeout=PATIENCE_SECONDS, suppress_origin=True)
        self.problems: list[str] = []
        self._number = 0
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        """What a JavaScript expression is in the page; a promise is waited for."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.value(script):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {script}"
            time.sleep(0.1)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self.socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("method") == "Runtime.exceptionThrown":
                self.problems.append(str(message["params"]))
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.problems.append(str(message["params"]["entry"]))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]


@contextmanager
def browser(binary: str, folder: Path) -> Iterator[Page]:
    """A browser with one tab; its profile is in ``folder``."""
    process = subprocess.Popen(
        [binary, *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(folder / "DevToolsActivePort")
        yield Page(_first_tab(port))
    finally:
        process.terminate()
        process.wait(10)


def _port(file: Path) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (file.exists() and file.read_text().count("\n")):
        assert time.monotonic() < deadline, "the browser has not started"
        time.sleep(0.1)
    return int(file.read_text().split()[0])


def _first_tab(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_SECONDS) as answer:
        return str(next(tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page"))
