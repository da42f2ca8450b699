"""The outbox: chunks that wait, and which of them are sent next."""

from collections import Counter
from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Connection, func, or_, select, update

from tasks.ledger.closing import STARTS
from tasks.ledger.database import Database, now
from tasks.ledger.records import Dispatched
from tasks.ledger.tables import chunk, run, run_model
from tasks.ledger.turns import Waiting, share
from tasks.states import ChunkState, RunKind


class Outbox:
    def __init__(self, database: Database):
        self.database = database

    def dispatch(
        self, model: str, capacity: Mapping[RunKind, int], identities: Collection[str | None] | None = None
    ) -> list[Dispatched]:
        """Mark chunks as queued until a lane has ``capacity`` of them queued or leased; the caller publishes them.

        Runs made with another entry than any of ``identities``, those of the workers that are ready (None: of any), and
        runs of which the model was given up take no places away.

        Arena comes before bulk; within a lane, priority decides, then owners and their runs take turns.
        """
        # Looked at without the write lock first: most often there is nothing to do.
        with self.database.read() as connection:
            places = self._places(connection, model, capacity)
            waiting = {lane: self._waiting(connection, model, lane, identities) for lane in places}
        if not any(waiting.values()):
            return []

        def take(connection: Connection) -> list[Dispatched]:
            # Counted again: of several that look at once each would take all the places that it saw.
            places = self._places(connection, model, capacity)
            lanes = [lane for lane in places if lane in waiting]
            return [item for lane in lanes for item in self._take(connection, model, lane, waiting[lane], places[lane])]

        return self.database.transact(take)

    def _places(self, connection: Connection, model: str, capacity: Mapping[RunKind, int]) -> dict[RunKind, int]:
        out = [ChunkState.QUEUED, ChunkState.LEASED]
        query = select(chunk.c.lane, func.count()).where(chunk.c.model == model, chunk.c.state.in_(out))
        outstanding = {row[0]: row[1] for row in connection.execute(query.group_by(chunk.c.lane))}
        free = {lane: capacity[lane] - outstanding.get(lane, 0) for lane in RunKind}
        return {lane: number for lane, number in free.items() if number > 0}

    def _waiting(
        self, connection: Connection, model: str, lane: RunKind, identities: Collection[str | None] | None
    ) -> list[Waiting]:
        """Runs that have a chunk to give. Steps from run to run through the index, so a run's size does not matter."""
        in_lane = _in_lane(model, lane)
        found = select(func.min(chunk.c.run).label("run")).where(in_lane).cte("found", recursive=True)
        following = select(func.min(chunk.c.run)).where(in_lane, chunk.c.run > found.c.run).scalar_subquery()
        found = found.union_all(select(following).where(found.c.run.is_not(None)))
        due = select(chunk.c.id).where(in_lane, chunk.c.run == run.c.id, chunk.c.not_before <= now())
        next_chunk = due.order_by(chunk.c.first).limit(1).scalar_subquery().label("next_chunk")
        of_model = (run_model.c.run == run.c.id) & (run_model.c.model == model)
        query = (
            select(run.c.id, run.c.owner, run.c.priority, run_model.c.dispatched, run.c.created, next_chunk)
            .select_from(found.join(run, run.c.id == found.c.run).join(run_model, of_model))
            .where(run.c.state.in_(STARTS), run_model.c.given_up.is_(None))
        )
        if identities is not None and None not in identities:
            query = query.where(or_(run_model.c.identity.is_(None), run_model.c.identity.in_(identities)))
        return [Waiting(*row) for row in connection.execute(query) if row.next_chunk is not None]

    def _take(
        self, connection: Connection, model: str, lane: RunKind, waiting: list[Waiting], places: int
    ) -> list[Dispatched]:
        taken: list[int] = []
        served: set[str] = set()
        while waiting and len(taken) < places:
            turns = share(waiting, places - len(taken))
            numbers = Counter(turns)
            found = {
                run_id: self._first(connection, model, lane, run_id, number, taken)
                for run_id, number in numbers.items()
            }
            waiting = [one for one in waiting if len(found.get(one.run, ())) == numbers[one.run]]
            served |= {run_id for run_id, ids in found.items() if ids}
            taken += [found[run_id].pop(0) for run_id in turns if found[run_id]]
        if taken:
            queued = {"state": ChunkState.QUEUED, "queued_at": now()}
            connection.execute(update(chunk).where(chunk.c.id.in_(taken)).values(queued))
            of_runs = (run_model.c.model == model) & run_model.c.run.in_(served)
            connection.execute(update(run_model).where(of_runs).values(dispatched=now()))
        return [Dispatched(chunk_id, lane) for chunk_id in taken]

    def _first(
        self, connection: Connection, model: str, lane: RunKind, run_id: str, number: int, taken: list[int]
    ) -> list[int]:
        query = (
            select(chunk.c.id)
            .where(_in_lane(model, lane), chunk.c.run == run_id, chunk.c.not_before <= now())
            .where(chunk.c.id.not_in(taken))
            .order_by(chunk.c.first, chunk.c.id)
            .limit(number)
            .with_for_update(skip_locked=True)
        )
        return list(connection.execute(query).scalars())


def _in_lane(model: str, lane: RunKind) -> ColumnElement[bool]:
    return (chunk.c.model == model) & (chunk.c.state == ChunkState.PENDING) & (chunk.c.lane == lane)
