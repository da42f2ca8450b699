"""A Touchstone of real processes that a test may hurt: Redis, ledger, scorer, workers, web."""

import json
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tasks.conversation import NewPrompt
from tasks.host.redis_server import free_port
from tasks.host.supervisor import Child, Supervisor
from tasks.ledger import Ledger
from tasks.ledger.migrate import migrate
from tasks.ledger.records import Completion, Run
from tasks.ledger.tables import chunk, run
from tasks.service import Service
from tasks.settings import ROOT, Settings
from tasks.states import ChunkState, RunKind, WorkerState
from tests.faults.checker import History, Verdict, check, completions
from tests.faults.overheard import held_by
from tests.faults.processes import Process, Redis, python, until

MODEL = "sim"
LEASE = 4.0
START_SECONDS = 90.0
SHORT = {"lease": LEASE, "renew": 1.0, "sweep": 0.5, "watchdog": 8.0, "drain": 3.0}


@dataclass(frozen=True)
class Kind:
    """What a scene's workers run: a model's name, its entry in the registry, and the module of its worker."""

    model: str
    entry: str
    module: str


SIMULATED = Kind(MODEL, 'source = "."\nslots = 8', "tests.faults.simulated")
REAL = Kind(
    "poet-small",
    f'source = "{ROOT}/worker/demo/poet-small"\nslots = 32\ntemplate = "{{prompt}}\\n"\nadd_special_tokens = false\n'
    "decoding = { max_new_tokens = 64, temperature = 0.8, top_p = 0.9 }",
    "worker",
)


@dataclass(frozen=True)
class Web:
    """The pages and the API, served by a process of their own."""

    process: Process
    url: str

    def call(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer; errors too."""
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | dict(headers or {})
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, sent), timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


class Scene:
    """``settings`` have short leases; ``history`` is what was submitted through this object."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        kind: Kind = SIMULATED,
        redis: Redis | None = None,
        times: Mapping[str, float] = SHORT,
    ):
        models = folder / "models.toml"
        models.write_text(f'[[model]]\nname = "{kind.model}"\n{kind.entry}\n', encoding="utf-8")
        self.folder, self.kind = folder, kind
        self.redis = redis or Redis(folder)
        self.settings = Settings(
            redis_url=self.redis.url,
            database_url=database_url,
            data=folder,
            models=models,
            **times,
        )
        migrate(self.settings)
        self.ledger = Ledger(self.settings)
        self.service = Service(self.settings)
        self.history = History(simulated=kind is SIMULATED)
        self.processes: list[Process] = [self.redis]
        self._supervisor: Supervisor | None = None

    def start(self, name: str, argv: Sequence[str], **environment: str) -> Process:
        process = Process(name, argv, self.folder, self.settings.to_environment() | environment)
        self.processes.append(process)
        return process

    def scorer(self) -> Process:
        return self.start("scorer", python("tasks", "scorer"))

    def worker(
        self, *, prefix: Sequence[str] = (), module: str = "tests.faults.simulated", **environment: str
    ) -> Process:
        """A worker of the model; it is not waited for."""
        name = f"worker-{len(self.processes)}"
        return self.start(name, [*prefix, *python(self.kind.module, "--model", self.kind.model)], **environment)

    def workers(self, number: int, **environment: str) -> list[Process]:
        """The scorer and that many workers, all ready."""
        self.scorer()
        started = [self.worker(**environment) for _ in range(number)]
        self.wait_ready(number)
        return started

    def web(self, host: str = "127.0.0.1", *, prefix: Sequence[str] = ()) -> Web:
        port = free_port()
        argv = [*prefix, *python("tasks", "web", "--host", host, "--port", str(port))]
        web = Web(self.start(f"web-{len(self.processes)}", argv), f"http://{host}:{port}")
        until(lambda: _answers(web), START_SECONDS, "the web answers")
        return web

    def supervised(self, number: int, **environment: str) -> None:
        """The scorer and workers that are started again when they die, as `up` does it."""
        self.scorer()
        self._supervisor = supervisor = Supervisor()
        variables = self.settings.to_environment() | environment
        # They are started by the thread that watches: a child ends with the thread that started it.
        children = [
            Child(f"worker {i}", python(self.kind.module, "--model", self.kind.model), variables) for i in range(number)
        ]
        supervisor.children += children
        threading.Thread(target=supervisor.watch, daemon=True).start()
        self.wait_ready(number)

    def kill_supervised(self, number: int) -> None:
        """Let a supervised worker crash."""
        assert self._supervisor
        process = self._supervisor.children[number].process
        assert process
        process.kill()

    @property
    def deaths(self) -> int:
        """How often a supervised worker has died in quick succession."""
        return sum(child.failures for child in self._supervisor.children) if self._supervisor else 0

    def ready(self) -> int:
        return sum(worker.alive and worker.state is WorkerState.READY for worker in self.ledger.workers.all())

    def wait_ready(self, number: int) -> None:
        until(lambda: self.ready() >= number, START_SECONDS, f"{number} workers are ready")

    def prompts(self, number: int) -> list[str]:
        """Texts that are found nowhere else."""
        return [f"秘密 {self.folder.name} {time.monotonic_ns()} {i}" for i in range(number)]

    def submit(self, prompts: list[str] | int, *, kind: RunKind = RunKind.BULK, tokens: int | None = 10) -> Run:
        """Submit a run; when this returns it is acknowledged."""
        texts = self.prompts(prompts) if isinstance(prompts, int) else prompts
        self.history.attempt(texts)
        submitted, _ = self.service.submit(
            prompts=[NewPrompt(text) for text in texts],
            models=[self.kind.model],
            sampling={"max_new_tokens": tokens} if tokens else {},
            owner="test",
            kind=kind,
        )
        self.history.acknowledged[submitted.id] = texts[0]
        return submitted

    def post(self, web: Web, prompts: list[str] | int, key: str | None = None, **body: Any) -> tuple[int, Any]:
        """Submit a run to the web; returns status and answer."""
        texts = self.prompts(prompts) if isinstance(prompts, int) else prompts
        if texts[0] not in self.history.attempted:
            self.history.attempt(texts)
        headers = {"Idempotency-Key": key} if key else {}
        status, answer = web.call("/api/runs", {"prompts": texts, "models": [self.kind.model]} | body, headers)
        if status == 202:
            self.history.acknowledged[answer["id"]] = texts[0]
        return status, answer

    def done(self, run: Run) -> int:
        return self.ledger.runs.get(run.id).counts.done

    def leased_by(self, process: Process) -> list[int]:
        """Chunks that a worker process holds, by the ledger."""
        mine = [worker.id for worker in self.ledger.workers.all() if worker.pid == process.pid]
        held = select(chunk.c.id).where(chunk.c.state == ChunkState.LEASED, chunk.c.worker.in_(mine))
        with self.ledger.database.read() as connection:
            return list(connection.execute(held).scalars())

    def states(self, chunks: Sequence[int]) -> set[str]:
        with self.ledger.database.read() as connection:
            return set(connection.execute(select(chunk.c.state).where(chunk.c.id.in_(chunks))).scalars())

    def freeze(self, process: Process) -> None:
        """Stop a process, but not inside a write transaction: on SQLite that would stop everybody (case 24)."""
        process.freeze()
        while self.ledger.database.is_sqlite and not self._writable():
            process.thaw()
            time.sleep(0.01)
            process.freeze()

    def _writable(self) -> bool:
        connection = sqlite3.connect(self.ledger.database.engine.url.database or "", isolation_level=None, timeout=1)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            connection.close()
        return True

    def rows(self, run: Run) -> list[Completion]:
        return completions(self.ledger, run.id)

    def drained(self, seconds: float = 60.0) -> Verdict:
        """Wait until every run has ended, then count; nothing may be lost, unexpected or duplicated."""
        until(self._at_rest, seconds, "every run has ended")
        verdict = check(self.ledger, self.history)
        print(f"\n{verdict}")
        assert verdict.lost == verdict.unexpected == verdict.duplicated == 0, verdict
        self._assert_no_text()
        return verdict

    def _at_rest(self) -> bool:
        """Every run has ended, and no chunk is held any more by a worker that died after its last write."""
        is_open = chunk.c.state.in_([ChunkState.PENDING, ChunkState.QUEUED, ChunkState.LEASED])
        with self.ledger.database.read() as connection:
            if connection.execute(select(chunk.c.id).where(is_open).limit(1)).first():
                return False
            return connection.execute(select(run.c.id).where(run.c.finished.is_(None)).limit(1)).first() is None

    def _assert_no_text(self) -> None:
        """I10: no prompt in Redis and in no log."""
        firsts = [texts[0] for texts in self.history.attempted.values()]
        marks = [form.encode() for text in firsts for form in (text, json.dumps(text)[1:-1])]
        held = held_by(self.redis.client)
        logs = b"".join(process.log.read_bytes() for process in self.processes)
        for mark in marks:
            assert mark not in held and mark not in logs, "I10: no prompt text in Redis or in logs"

    def end(self) -> None:
        if self._supervisor:
            self._supervisor.stopping = True
            self._supervisor.stop()
        for process in reversed(self.processes):
            process.end()
        self.ledger.close()

    def logs(self) -> str:
        return "\n".join(f"--- {process.name}\n{process.said[-3000:]}" for process in self.processes)


def _answers(web: Web) -> bool:
    try:
        return web.call("/healthz")[0] == 200
    except (urllib.error.URLError, ConnectionError):
        return False
