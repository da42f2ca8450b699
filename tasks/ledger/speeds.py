"""What estimates are made of: completions that were computed here, and who waits for a model. All of it is bounded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, literal, or_, select

from tasks.ledger.closing import STARTS
from tasks.ledger.database import Database, now
from tasks.ledger.tables import completion, prompt, run, run_model
from tasks.ledger.turns import Queued
from tasks.states import FinishReason, Origin, RunKind

LOOKED_AT = 20_000  # completions of a model: stored answers may hide those that were computed
MEASURED = 2000
RECENT = 2000
RECENT_SECONDS = 180.0
WHOLE = (FinishReason.STOP, FinishReason.STOP_STRING, FinishReason.LENGTH, FinishReason.CONTEXT)


@dataclass(frozen=True)
class Measured:
    """A completion that was computed here and ended well. Times are seconds since 1970.

    ``characters`` are those of its prompt's text, ``sampling`` what its run and its prompt asked for, ``beside`` the
    other models of its run.
    """

    run: str
    characters: int
    prompt_tokens: int | None
    output_tokens: int | None
    finish_reason: FinishReason
    created: float
    claimed: float
    admitted: float
    written: float
    batch_size: int | None
    worker: str | None
    cold: bool
    sampling: Mapping[str, Any]
    beside: frozenset[str]


@dataclass(frozen=True)
class Recent:
    """Completions that a run has got of a model within the last ``seconds``.

    ``is_whole``: they are all that it has got, and the time is counted from when the first was begun.
    """

    completions: int
    seconds: float
    is_whole: bool = False


class Speeds:
    def __init__(self, database: Database):
        self.database = database

    def measured(self, model: str, identity: str | None) -> list[Measured]:
        """The newest completions that a model has computed, newest first.

        Those of runs made with another entry of that name are left out; ``identity`` is that of the entry.
        """
        newest = select(*completion.primary_key.columns).where(completion.c.model == model)
        keys = newest.order_by(completion.c.written.desc()).limit(LOOKED_AT).subquery()
        same = and_(*(column == keys.c[column.name] for column in completion.primary_key.columns))
        of_model = (run_model.c.run == completion.c.run) & (run_model.c.model == model)
        asked = (prompt.c.run == completion.c.run) & (prompt.c.idx == completion.c.idx)
        query = (
            select(
                completion.c.run,
                func.length(prompt.c.text).label("characters"),
                completion.c.prompt_tokens,
                completion.c.output_tokens,
                completion.c.finish_reason,
                completion.c.created,
                completion.c.claimed,
                completion.c.admitted,
                completion.c.written,
                completion.c.batch_size,
                completion.c.worker,
                completion.c.cold,
                run.c.sampling,
                prompt.c.sampling.label("own"),
            )
            .select_from(completion.join(keys, same).join(run_model, of_model).join(run).join(prompt, asked))
            .where(completion.c.origin == Origin.COMPUTED, completion.c.finish_reason.in_(WHOLE))
            .where(completion.c.admitted.is_not(None), completion.c.claimed.is_not(None))
            .where(or_(run_model.c.identity.is_(None), run_model.c.identity == identity))
            .order_by(completion.c.written.desc())
            .limit(MEASURED)
        )
        with self.database.read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
            beside = self._beside(connection, model, {row["run"] for row in rows})
        return [_measured(row, beside.get(row["run"], frozenset())) for row in rows]

    def queued(self, model: str) -> list[Queued]:
        """The runs that have something to be computed by a model and are not held up."""
        pending = run_model.c.total - run_model.c.done - run_model.c.failed - run_model.c.cancelled
        query = (
            select(run.c.id, run.c.owner, run.c.kind, run.c.priority, pending.label("completions"))
            .select_from(run_model.join(run))
            .where(run.c.finished.is_(None), run.c.state.in_(STARTS), run_model.c.model == model)
            .where(run_model.c.given_up.is_(None), pending > 0)
        )
        with self.database.read() as connection:
            rows = connection.execute(query)
            return [Queued(row.id, row.owner, RunKind(row.kind), row.priority, row.completions) for row in rows]

    def recent(self, run_id: str, model: str, ended: int) -> Recent:
        """What a run has got of a model in the last minutes; ``ended`` is how much it has got in all."""
        newest = select(completion.c.run, completion.c.claimed, completion.c.written).where(completion.c.model == model)
        latest = newest.order_by(completion.c.written.desc()).limit(RECENT).subquery()
        number, first, claimed = func.count(), func.min(latest.c.written), func.min(latest.c.claimed)
        query = select(number, now(), first, claimed).where(latest.c.run == run_id)
        lately = query.where(latest.c.written > now() - literal(RECENT_SECONDS))
        with self.database.read() as connection:
            completions, clock, written, started = connection.execute(lately).one()
        if not completions:
            return Recent(0, 0.0)
        is_whole = completions >= ended and started is not None
        return Recent(completions, max(clock - (started if is_whole else written), 1e-3), is_whole)

    def _beside(self, connection: Connection, model: str, runs: set[str]) -> dict[str, frozenset[str]]:
        query = select(run_model.c.run, run_model.c.model).where(run_model.c.run.in_(runs), run_model.c.model != model)
        found: dict[str, set[str]] = {}
        for row in connection.execute(query.where(run_model.c.origin == Origin.COMPUTED)):
            found.setdefault(row.run, set()).add(row.model)
        return {run_id: frozenset(names) for run_id, names in found.items()}


def _measured(row: dict[str, Any], beside: frozenset[str]) -> Measured:
    sampling = row.pop("sampling") | (row.pop("own") or {})
    created = row["created"] if row["created"] is not None else row["claimed"]
    return Measured(
        **row | {"finish_reason": FinishReason(row["finish_reason"]), "created": created},
        sampling=sampling,
        beside=beside,
    )
