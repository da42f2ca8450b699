"""A server that this worker starts: pinned like the worker, kept running, and ended with it."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tasks.errors import ModelError
from tasks.registry import OpenAIModel
from worker.backends.openai.problems import ServerLost
from worker.backends.openai.sockets import free_port, listens_beyond_loopback

logger = logging.getLogger(__name__)

START_SECONDS = 1800.0  # for the largest model from the slowest disk
POLL_SECONDS = 0.25
STOP_SECONDS = 10.0
CALM_SECONDS = 60.0  # a death after that is the first again
FIRST_WAIT = 0.5
MAX_DEATHS = 3  # without a token between them
LAST_LINES = 12
MAX_LINE = 300  # characters
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Watchers:
    """Whom a served process tells and asks: where it is now, whether it answers there, that it is still starting.

    ``hide`` takes out of its output what nobody may see.
    """

    moved: Callable[[str], None]
    healthy: Callable[[], Awaitable[bool]]
    starting: Callable[[], None]
    hide: Callable[[str], str]


class ServedProcess:
    """Starts ``entry.serve`` again when it dies, until it has died too often; for one event loop.

    ``deaths`` counts those since it last made a token.
    """

    def __init__(self, entry: OpenAIModel, watchers: Watchers):
        self.entry, self.watchers = entry, watchers
        self.deaths = 0
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._lost: str | None = None
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._reader: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._started = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it answers. Raises `ModelError` with the last that it said."""
        try:
            await self._launch()
        except BaseException:
            await self._end()
            raise
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self) -> None:
        """Wait until it answers. Raises `ServerLost` when it is not started any more."""
        await self._ready.wait()
        if self._lost is not None:
            raise ServerLost(self._lost)

    def made_token(self) -> None:
        self.deaths = 0

    async def close(self) -> None:
        """End it and all that it started: SIGTERM, then SIGKILL."""
        if self._keeper is not None:
            self._keeper.cancel()
        self._lost = "The backend is closed."
        self._ready.set()
        await self._end()

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            self._ready.clear()
            self.deaths = 1 if time.monotonic() - self._started > CALM_SECONDS else self.deaths + 1
            await self._end()
            # What it said may repeat prompts, which get into no log.
            what = f"{self._name} ended ({_described(code)})"
            if self.deaths >= MAX_DEATHS:
                self._lost = f"{what}; it is not started again after {MAX_DEATHS} times."
                logger.error("%s", self._lost)
                self._ready.set()
                return
            wait = FIRST_WAIT * 2 ** (self.deaths - 1)
            logger.warning("%s; starting it again in %g s", what, wait)
            await asyncio.sleep(wait)
            try:
                await self._launch()
            except ModelError as error:  # it has ended or is ended here, before any prompt, and is counted above
                logger.warning("%s", error.message)
                await self._end()

    async def _launch(self) -> None:
        port = free_port()
        argv = [self._filled(word, port) for word in self.entry.serve]
        self._lines.clear()
        self._started = time.monotonic()
        parent = os.getpid()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                env={**os.environ, **visible_devices(self.entry.device, os.environ)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=(lambda: _die_with_parent(parent)) if LIBC is not None else None,
            )
        except OSError as error:
            raise ModelError(f"{self._name} cannot be started: {error.strerror}; correct serve.") from error
        self._reader = asyncio.create_task(self._read(self._process))
        self.watchers.moved(f"http://127.0.0.1:{port}")
        await self._wait_until_healthy(self._process)
        if listens_beyond_loopback(port):
            raise ModelError(
                f"{self._name} listens on more than loopback, where anybody may ask it; add its option for "
                "127.0.0.1 to serve, such as '--host', '127.0.0.1'."
            )
        self._ready.set()

    async def _wait_until_healthy(self, process: asyncio.subprocess.Process) -> None:
        while process.returncode is None:
            if time.monotonic() - self._started > START_SECONDS:
                raise ModelError(f"{self._name} does not answer after {START_SECONDS:.0f} s{self._last_words()}.")
            self.watchers.starting()
            if await self.watchers.healthy():
                return
            await asyncio.sleep(POLL_SECONDS)
        await self._drained()
        raise ModelError(
            f"{self._name} ended ({_described(process.returncode)}) before it answered{self._last_words()}. "
            "Correct serve, or what it names."
        )

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        # Whatever it started shares its group, and would keep a device's memory.
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()
        await self._drained()

    async def _drained(self) -> None:
        """Wait for the last that it said; a process that outlives it may hold the pipe open."""
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=1.0)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        rest = ""
        while chunk := await process.stdout.read(65536):
            *lines, rest = (rest + chunk.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
            self._lines.extend(line[:MAX_LINE] for line in lines if line.strip())
            rest = rest[:MAX_LINE]
        if rest.strip():
            self._lines.append(rest)

    def _filled(self, word: str, port: int) -> str:
        values = {"source": self.entry.location or "", "port": str(port), "slots": str(self.entry.slots)}
        for name, value in values.items():
            word = word.replace("{" + name + "}", value)
        return word

    def _last_words(self) -> str:
        return f"; it said: {self.watchers.hide(' | '.join(self._lines))}" if self._lines else ""

    @property
    def _name(self) -> str:
        return f"{self.entry.name}: its server {self.entry.serve[0]!r}"


def visible_devices(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that shows a server just its device; an outer choice is kept and counted within."""
    if device == "auto":
        return {}
    if device == "cpu":
        return {"CUDA_VISIBLE_DEVICES": ""}
    number = int(device.removeprefix("cuda:"))
    outer = [one.strip() for one in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return {"CUDA_VISIBLE_DEVICES": outer[number] if number < len(outer) else str(number)}


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _described(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _die_with_parent(parent: int) -> None:
    # A worker that is killed with -9 must not leave a server behind that holds a device.
    assert LIBC is not None
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
