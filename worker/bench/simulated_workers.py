"""Simulated workers at work on one run, watched from outside."""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis
from sqlalchemy import func, select, text

from tasks.ledger import Ledger
from tasks.ledger.tables import completion
from tasks.queue.celery import SCORE_QUEUE
from tasks.queue.live import connect
from tasks.settings import Settings
from worker.bench.processes import START_SECONDS, cpu_seconds, running

LOOK_SECONDS = 0.1
# Between these shares of the work is measured: before, processes start; after, they run dry.
FROM, TO = 0.1, 0.9


@dataclass(frozen=True)
class Crew:
    """Who works: ``workers`` simulated workers, spread over ``processes`` a model; ``direct`` leaves Celery out."""

    workers: int
    processes: int
    characters: int
    direct: bool
    scorer: bool


@dataclass(frozen=True)
class Found:
    """What came of it. Rates are of the middle of the work; ``lost`` and ``duplicated`` count completions.

    ``oldest_heartbeat`` is the age in seconds at the end, of which more than 15 would mean a worker taken for dead,
    ``worker_cpu_ms`` is CPU time of the workers' processes a completion, ``database_bytes`` what the database grew by
    a completion, ``redis_bytes`` the most memory that Redis used beyond what it used empty, ``score_messages`` how
    many of its messages were for a scorer that was not there.
    """

    mode: str
    workers: int
    processes: int
    models: int
    completions: int
    chunks: int
    completions_per_second: float
    chunks_per_second: float
    seconds: float
    oldest_heartbeat: float
    worker_cpu_ms: float
    database_bytes: float
    redis_bytes: int
    score_messages: int
    lost: int
    duplicated: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def work(settings: Settings, ledger: Ledger, run_id: str, chunks: int, crew: Crew, seconds: float) -> Found:
    """Let ``crew`` do a run to its end. Raises `TimeoutError` when that takes more than ``seconds``."""
    run = ledger.runs.get(run_id)
    total = run.counts.total
    redis = connect(settings.redis_url)
    empty, before = _redis_bytes(redis), database_bytes(ledger)
    most = empty
    seen: list[tuple[float, int]] = []
    with running(settings, list(_commands(list(run.models), crew))) as processes:
        until = time.monotonic() + START_SECONDS + seconds
        while (ended := ledger.runs.get(run_id).counts.ended) < total:
            seen.append((time.monotonic(), ended))
            most = max(most, _redis_bytes(redis))
            if time.monotonic() > until or any(process.poll() is not None for process in processes):
                raise TimeoutError(f"{total - ended} of {total} completions were not done after {seconds:.0f} s")
            time.sleep(LOOK_SECONDS)
        seen.append((time.monotonic(), ended))
        scores = int(redis.llen(SCORE_QUEUE))
        cpu = sum(map(cpu_seconds, processes))
        workers = ledger.workers.all()
        now = ledger.clock()
    with ledger.database.read() as connection:
        of_run = select(func.count()).select_from(completion).where(completion.c.run == run_id)
        rows = connection.execute(of_run).scalar_one()
    # The last look before, so that a load of a few moments has a rate, too: at least what it really was.
    began, first = next((at, ended) for at, ended in reversed(seen) if ended < FROM * total)
    done, last = next((at, ended) for at, ended in seen if ended >= TO * total)
    rate = (last - first) / (done - began)
    return Found(
        mode="ledger" if crew.direct else "celery",
        workers=crew.workers,
        processes=len(processes),
        models=len(run.models),
        completions=total,
        chunks=chunks,
        completions_per_second=round(rate, 1),
        chunks_per_second=round(rate * chunks / total, 2),
        seconds=round(seen[-1][0] - next(at for at, ended in reversed(seen) if ended == 0), 2),
        oldest_heartbeat=round(max(now - worker.heartbeat for worker in workers), 2),
        worker_cpu_ms=round(1000 * cpu / total, 3),
        database_bytes=round((database_bytes(ledger) - before) / total, 1),
        redis_bytes=most - empty,
        score_messages=scores,
        lost=total - rows,
        duplicated=ledger.runs.get(run_id).counts.done - rows,
    )


def database_bytes(ledger: Ledger) -> int:
    """How much the ledger takes on disk, after what is in SQLite's log has gone into its file."""
    if ledger.database.is_sqlite:
        with ledger.database.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return os.stat(ledger.database.engine.url.database or "").st_size
    with ledger.database.read() as connection:
        return connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()


def _commands(models: list[str], crew: Crew) -> Iterator[list[str]]:
    for number, workers in enumerate(shares(crew.workers, max(len(models), crew.processes))):
        options = ["--workers", str(workers), "--characters", str(crew.characters)]
        options += ["--direct"] if crew.direct else []
        yield ["worker.bench.simulated", "--model", models[number % len(models)], *options]
    if crew.scorer:
        yield ["tasks", "scorer"]


def shares(number: int, parts: int) -> list[int]:
    """``number`` in ``parts`` parts that differ by at most one; parts of nothing are left out."""
    return [number // parts + (i < number % parts) for i in range(min(number, parts))]


def _redis_bytes(redis: Redis) -> int:
    return int(redis.info("memory")["used_memory"])
