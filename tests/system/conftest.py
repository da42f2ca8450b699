"""A whole Touchstone in a folder of its own: the real `up`, with real Redis, workers and demo models."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tasks.errors import ConfigurationError
from tasks.host.redis_server import find_binary, free_port
from tasks.settings import ROOT
from tests.conftest import require

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --disable-quic --lang=zh-CN --window-size=1200,1000"
)


@dataclass(frozen=True)
class Running:
    """A running `up`: where it serves, its data folder and its process."""

    url: str
    data: Path
    process: "subprocess.Popen[bytes]"

    def call(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of a request to the API; errors too."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"} | (headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def wait(self, run: str, seconds: float = 60.0) -> Any:
        """The run's state when it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                state = self.call(f"/api/runs/{run}")[1]
            except (urllib.error.URLError, ConnectionError):
                state = {"state": "web is away"}
            if state["state"] in ("done", "cancelled") and not state["counts"]["pending"]:
                return state
            time.sleep(0.1)
        pytest.fail(f"run {run} has not ended within {seconds} s: {state}")

    def wait_until_some_are_done(self, run: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.call(f"/api/runs/{run}")[1]["counts"]["done"]:
            assert time.monotonic() < deadline, f"nothing of run {run} is done within {seconds} s"
            time.sleep(0.02)

    def wait_for_another(self, word: str, killed: int, seconds: float = 60.0) -> None:
        """Until the supervisor has started the child anew and the web answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            anew = any(word in command and pid != killed for command, pid in self.children().items())
            try:
                if anew and self.call("/readyz")[0] == 200:
                    return
            except (urllib.error.URLError, ConnectionError):
                anew = False
            time.sleep(0.1)
        pytest.fail(f"{word} was not started again within {seconds} s")

    def children(self) -> dict[str, int]:
        """Process ids of the supervised children, by what their command line says."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                command = (folder / "cmdline").read_text().replace("\0", " ")
            except (OSError, IndexError):
                continue
            if parent == self.process.pid:
                found[command] = int(folder.name)
        return found

    def child(self, word: str) -> int:
        return next(pid for command, pid in self.children().items() if word in command)


def start(data: Path, *options: str) -> "subprocess.Popen[bytes]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHSTONE_")}
    argv = [sys.executable, "-m", "tasks", "up", "--data", str(data), *options]
    return subprocess.Popen(argv, cwd=ROOT, env=environment, stderr=subprocess.PIPE)


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    try:
        find_binary()
    except ConfigurationError:
        require(False, "redis-server")
    port = free_port()
    data = tmp_path_factory.mktemp("data")
    up = Running(f"http://127.0.0.1:{port}", data, start(data, "--port", str(port)))
    try:
        wait_until_ready(up)
        yield up
    finally:
        up.process.send_signal(signal.SIGTERM)
        up.process.wait(60)
        assert not (data / "redis.url").exists()


def wait_until_ready(up: Running, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and up.process.poll() is None:
        try:
            ready = [model["ready_workers"] for model in up.call("/api/models")[1]["models"]]
        except (urllib.error.URLError, ConnectionError):
            ready = [0]
        if all(ready):
            return
        time.sleep(0.2)
    pytest.fail(f"not ready within {seconds} s")


@pytest.fixture(scope="session")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    require(path is not None and shutil.which("chromedriver") is not None, "Chromium with chromedriver")
    assert path is not None
    return path


@pytest.fixture
def browser(chromium: str, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()
