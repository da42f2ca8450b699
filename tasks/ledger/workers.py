"""Worker processes, known by their heartbeats."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, literal, select, update

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

        def store(connection: Connection) -> None:
            connection.execute(delete(worker).where(worker.c.heartbeat < now() - literal(FORGET_SECONDS)))
            connection.execute(delete(worker).where(worker.c.id == new.id))
            connection.execute(insert(worker).values(values))

        self.database.transact(store)

    def beat(self, worker_id: str, **changes: Any) -> None:
        """Renew a worker's heartbeat and whatever has changed of it (columns of the worker table)."""
        renewed = update(worker).where(worker.c.id == worker_id).values(heartbeat=now(), **changes)
        self.database.transact(lambda connection: connection.execute(renewed))

    def died(self, host: str, pid: int) -> Worker | None:
        """Take a worker for lost at once, as whoever started its process saw it end; returns it as it was."""
        here = (worker.c.host == host) & (worker.c.pid == pid)
        living = here & worker.c.state.in_([WorkerState.LOADING, WorkerState.READY])
        found = next((one for one in self.all() if one.host == host and one.pid == pid and one.alive), None)
        lost = update(worker).where(living).values(heartbeat=now() - literal(self.fresh))
        self.database.transact(lambda connection: connection.execute(lost))
        return found

    def all(self) -> list[Worker]:
        """Every worker heard of within a day, by model, newest first."""
        age = (now() - worker.c.heartbeat).label("age")
        with self.database.read() as connection:
            rows = connection.execute(select(worker, age).order_by(worker.c.model, worker.c.started.desc())).mappings()
            return [self._worker(dict(row)) for row in rows]

    def ready(self, model: str) -> int:
        """How many workers of a model are alive and take work."""
        return len(self.ready_identities(model))

    def ready_identities(self, model: str) -> list[str | None]:
        """Of each worker of a model that is alive and takes work, the identity of the entry it runs."""
        is_ready = (worker.c.model == model) & (worker.c.state == WorkerState.READY) & self.is_fresh()
        with self.database.read() as connection:
            return list(connection.execute(select(worker.c.identity).where(is_ready)).scalars())

    def speed(self, model: str) -> float | None:
        """Completions a second of one worker of the model: the mean of those alive, else the last known, else None."""
        measured = (worker.c.model == model) & worker.c.speed.is_not(None)
        last = select(worker.c.speed).where(measured).order_by(worker.c.heartbeat.desc()).limit(1).scalar_subquery()
        with self.database.read() as connection:
            mean = select(func.coalesce(func.avg(worker.c.speed), last)).where(measured, self.is_fresh())
            return connection.execute(mean).scalar()

    def is_fresh(self) -> ColumnElement[bool]:
        """A condition on a worker: it was heard of lately."""
        return worker.c.heartbeat > now() - literal(self.fresh)

    def _worker(self, values: dict[str, Any]) -> Worker:
        age = values.pop("age")
        state = WorkerState(values.pop("state"))
        works = state in (WorkerState.LOADING, WorkerState.READY)
        alive = works and age < self.fresh
        return Worker(**values, state=WorkerState.LOST if works and not alive else state, alive=alive)
