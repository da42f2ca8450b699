"""Worker processes, known by their heartbeats."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, func, insert, literal, select, update

from tasks.ledger.database import Database, now
from tasks.ledger.records import Worker
from tasks.ledger.tables import worker
from tasks.states import WorkerState

FORGET_SECONDS = 86_400.0


class Workers:
    def __init__(self, database: Database, fresh: float):
        """``fresh``: seconds for which a heartbeat tells that its worker is alive."""
        self.database = database
        self.fresh = fresh

    def register(self, new: Worker) -> None:
        """Make a worker known; workers not heard of for a day are forgotten."""
        values = asdict(new) | {"started": now(), "heartbeat": now()}
        del values["alive"]
        with self.database.write() as connection:
            connection.execute(delete(worker).where(worker.c.heartbeat < now() - literal(FORGET_SECONDS)))
            connection.execute(delete(worker).where(worker.c.id == new.id))
            connection.execute(insert(worker).values(values))

    def beat(self, worker_id: str, **changes: Any) -> None:
        """Renew a worker's heartbeat and whatever has changed of it (columns of the worker table)."""
        with self.database.write() as connection:
            connection.execute(update(worker).where(worker.c.id == worker_id).values(heartbeat=now(), **changes))

    def all(self) -> list[Worker]:
        """Every worker heard of within a day, by model, newest first."""
        age = (now() - worker.c.heartbeat).label("age")
        with self.database.read() as connection:
            rows = connection.execute(select(worker, age).order_by(worker.c.model, worker.c.started.desc())).mappings()
            return [self._worker(dict(row)) for row in rows]

    def ready(self, model: str) -> int:
        """How many workers of a model are alive and take work."""
        fresh = worker.c.heartbeat > now() - literal(self.fresh)
        is_ready = (worker.c.model == model) & (worker.c.state == WorkerState.READY) & fresh
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(worker).where(is_ready)).scalar_one()

    def speed(self, model: str) -> float | None:
        """Completions a second of one worker of the model, as last measured; None before any."""
        query = select(worker.c.speed).where(worker.c.model == model, worker.c.speed.is_not(None))
        with self.database.read() as connection:
            return connection.execute(query.order_by(worker.c.heartbeat.desc()).limit(1)).scalar()

    def _worker(self, values: dict[str, Any]) -> Worker:
        age = values.pop("age")
        state = WorkerState(values.pop("state"))
        alive = age < self.fresh and state in (WorkerState.LOADING, WorkerState.READY)
        return Worker(**values, state=state, alive=alive)
