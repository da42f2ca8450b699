"""Real processes of a test: started, hurt and ended by it, with their logs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import redis

from tasks.host.redis_server import find_binary, free_port
from tasks.settings import ROOT

END_SECONDS = 5.0


def until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until ``condition`` holds; returns how many seconds it took, and fails the test after ``seconds``."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - started


class Process:
    """A child with a log file."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None):
        self.name, self.argv, self.log = name, argv, folder / f"{name}.log"
        own = {key: value for key, value in os.environ.items() if not key.startswith("TOUCHSTONE_")}
        self.environment = own | dict(environment or {})
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.argv, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does: without a word."""
        self.popen.kill()
        self.popen.wait()

    def freeze(self) -> None:
        """Stop all threads; on a busy machine some go on for a moment after the signal."""
        self.send(signal.SIGSTOP)
        until(self._stands_still, 10, "every thread has stopped")

    def _stands_still(self) -> bool:
        stats = [file.read_text(encoding="utf-8") for file in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def wait(self, seconds: float) -> int:
        """Its exit code; fails the test when it has not ended by then."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} has not ended within {seconds:g} s")

    def end(self) -> None:
        """Whatever state it is in, have it gone."""
        if self.popen.poll() is None:
            self.thaw()
            self.popen.terminate()
            try:
                self.popen.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()


class Redis(Process):
    """A redis-server that keeps its port over restarts, and nothing else: it comes back empty."""

    def __init__(
        self, folder: Path, host: str = "127.0.0.1", *, prefix: Sequence[str] = (), options: Sequence[str] = ()
    ):
        self.port = free_port()
        self.url = f"redis://{host}:{self.port}/0"
        plain = ["--port", str(self.port), "--bind", host, "--dir", str(folder), "--save", "", "--appendonly", "no"]
        trusting = ["--protected-mode", "no"]
        super().__init__("redis", [*prefix, find_binary(), *plain, *trusting, *options], folder)

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def start(self) -> None:
        super().start()
        until(self._answers, 10, "Redis answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
