"""Processes of Touchstone that a benchmark runs and watches from outside."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tasks.settings import ROOT, Settings

Process = subprocess.Popen[bytes]

START_SECONDS = 60.0
STOP_SECONDS = 15.0


@contextmanager
def running(settings: Settings, commands: Sequence[Sequence[str]]) -> Iterator[list[Process]]:
    """A process for each of ``commands``, which are modules with their arguments, until the end."""
    environment = os.environ | settings.to_environment()
    processes: list[Process] = []
    quiet = subprocess.DEVNULL
    try:
        for argv in commands:
            command = [sys.executable, "-m", *argv]
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdin=quiet, stdout=quiet))
        yield processes
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def peak_bytes() -> int:
    """The most memory that this process has had in RAM; what its parent had does not count, as it does in rusage."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def cpu_seconds(process: Process) -> float:
    """CPU time of a running process so far."""
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_web(url: str) -> None:
    """Return when the web at ``url`` answers; raises `OSError` when it does not begin to."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=120) as response:
                response.read()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
