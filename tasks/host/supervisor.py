"""Keeps child processes running: what dies is started again, and all of them end with their parent."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.settings import ROOT

EXIT_CANNOT_START = 3  # a child's word that trying again is no use
EXIT_TRY_AGAIN = 75  # its word that something it needs is away for now
MAX_BACKOFF = 30.0
CALM_SECONDS = 60.0
STOP_SECONDS = 35.0
PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A process by its command; ``failures`` counts deaths in quick succession. ``model`` is a worker's."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    model: str | None = None
    process: "subprocess.Popen[bytes] | None" = None
    failures: int = 0
    started: float = 0.0
    start_at: float = field(default_factory=time.monotonic)
    given_up: bool = False

    def start(self) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            self.argv,
            env=os.environ | dict(self.environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Starts children in order, watches them, and ends them in reverse order.

    ``died`` is told of each death (child, process id, exit code) and may answer why there is no use in another start.
    """

    def __init__(self, died: Callable[[Child, int, int], str | None] | None = None) -> None:
        self.children: list[Child] = []
        self.stopping = False
        self._died = died

    def add(self, child: Child) -> None:
        """Start ``child`` and watch it from now on."""
        self.children.append(child)
        child.start()

    def watch(self) -> None:
        """Restart what dies, until `stop_on_signals` says so or nothing is left to watch."""
        while not self.stopping and not all(child.given_up for child in self.children):
            for child in self.children:
                self._look_after(child)
            time.sleep(0.5)

    def stop_on_signals(self) -> None:
        """Let SIGINT and SIGTERM end `watch`."""

        def stop(number: int, frame: object) -> None:
            self.stopping = True

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)

    def _look_after(self, child: Child) -> None:
        if child.running or child.given_up:
            return
        if child.process is not None:
            code, pid = child.process.returncode, child.process.pid
            child.process = None
            if code == EXIT_CANNOT_START:
                child.given_up = True
                say(f"{child.name} cannot start; the rest goes on without it. Mend the cause, then start again.")
                return
            if self._died and (reason := self._died(child, pid, code)):
                child.given_up = True
                say(f"{reason} The rest goes on without it.")
                return
            child.failures = 1 if time.monotonic() - child.started > CALM_SECONDS else child.failures + 1
            wait = min(MAX_BACKOFF, 0.5 * 2 ** (child.failures - 1))
            child.start_at = time.monotonic() + wait
            say(f"{child.name} ended ({describe(code)}); starting it again in {wait:g} s.")
        if time.monotonic() >= child.start_at:
            child.start()

    def stop(self) -> None:
        """End all children, the first one last: each gets SIGTERM and time to drain, then SIGKILL."""
        first, rest = self.children[:1], self.children[1:]
        for group in (rest, first):
            for child in group:
                if child.process and child.running:
                    child.process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            for child in group:
                if child.process:
                    _wait(child.process, max(0.1, deadline - time.monotonic()))


def say(text: str) -> None:
    """One line for the person at the terminal."""
    sys.stderr.write(f"touchstone: {text}\n")
    sys.stderr.flush()


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def describe(code: int) -> str:
    """An exit code in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _die_with_parent() -> None:
    # A supervisor that is killed with -9 must not leave children behind that hold ports and leases.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
