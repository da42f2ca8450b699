"""Answers that are there already or are being computed, by the key that says what decides them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, and_, delete, literal, or_, select, text, update

from tasks.ledger.database import Database, now
from tasks.ledger.records import Claim
from tasks.ledger.tables import chunk, completion, in_flight, run
from tasks.states import ChunkState, FinishReason, RunState

SOME_KEYS = 500  # a statement


@dataclass(frozen=True)
class StoredAnswer:
    """What was answered before, in the words of `Completion`; ``environment`` is what it was computed with."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    thinking: str | None = None
    thinking_tokens: int | None = None
    environment: str | None = None


@dataclass(frozen=True)
class Found:
    """What became of keys that were asked for: ``answers`` are there, ``ours`` are the asker's to compute.

    Whatever is in neither is being computed by somebody else.
    """

    answers: Mapping[str, StoredAnswer] = field(default_factory=dict)
    ours: frozenset[str] = frozenset()


class StoredAnswers:
    """Only what was computed for its own run counts as stored, and only while that run is there.

    Who computes a key marks it; a mark counts while the lease of its chunk holds, so that one who dies keeps nobody
    waiting for longer than that.
    """

    def __init__(self, database: Database):
        self.database = database

    def take(self, claim: Claim, keys: Sequence[str]) -> Found:
        """The answers to ``keys``, and a mark on each that neither has an answer nor is being computed.

        Of several answers to one key it is always the oldest. Nothing is written where nothing is to be marked.
        """
        answers: dict[str, StoredAnswer] = {}
        missing: list[str] = []
        with self.database.read() as connection:
            for some in _pieces(keys):
                answers |= _answers(connection, some)
                unanswered = [key for key in some if key not in answers]
                missing += sorted(set(unanswered) - _computed_by_others(connection, claim, unanswered))
        if not missing:
            return Found(answers)
        marked = self.database.transact(lambda connection: self._mark(connection, claim, missing))
        return Found({**answers, **marked.answers}, marked.ours)

    def _mark(self, connection: Connection, claim: Claim, keys: Sequence[str]) -> Found:
        """Whoever stores an answer takes its mark away in the same transaction: once marked, it is looked for again."""
        there = select(chunk.c.id).where(chunk.c.id == claim.chunk).with_for_update(read=True, key_share=True)
        if connection.execute(there).first() is None:  # its run is deleted, and the chunk will not be written any more
            return Found(ours=frozenset(keys))
        answers: dict[str, StoredAnswer] = {}
        ours: set[str] = set()
        for some in _pieces(keys):
            mine = {"chunk": claim.chunk, "token": claim.token}
            new = self.database.insert_new(connection, in_flight, [{"key": key} | mine for key in some])
            marked = {row.key for row in new}
            if rest := [key for key in some if key not in marked]:
                free = in_flight.c.key.in_(rest) & or_(_is_of(claim), ~_counts())
                taken = update(in_flight).where(free).values(mine).returning(in_flight.c.key)
                marked |= set(connection.execute(taken).scalars())
            found = _answers(connection, sorted(marked)) if marked else {}
            if found:
                connection.execute(delete(in_flight).where(in_flight.c.key.in_(found), _is_of(claim)))
            answers |= found
            ours |= marked - found.keys()
        return Found(answers, frozenset(ours))


def take_marks_away(connection: Connection, claim: Claim, keys: Collection[str] | None) -> None:
    """Take away a chunk's marks on these keys, all of its marks for None; a chunk that is not there any more has none.

    Where the lease was lost meanwhile, marks that another claim of the chunk has made stay.
    """
    if keys is None:
        connection.execute(delete(in_flight).where(in_flight.c.chunk == claim.chunk))
    for some in _pieces(sorted(keys or ())):
        connection.execute(delete(in_flight).where(in_flight.c.key.in_(some), _is_of(claim)))


def _answers(connection: Connection, keys: Sequence[str]) -> dict[str, StoredAnswer]:
    columns = [completion.c[name] for name in StoredAnswer.__dataclass_fields__]
    # Written out, so that SQLite knows its index of computed answers to serve.
    is_computed = text("completion.origin = 'computed'")
    query = (
        select(completion.c.cache_key, *columns)
        .join(run, run.c.id == completion.c.run)
        .where(completion.c.cache_key.in_(keys), is_computed, run.c.state != RunState.DELETED)
        .order_by(completion.c.written.desc())
    )
    return {
        key: StoredAnswer(said, FinishReason(reason), *rest) for key, said, reason, *rest in connection.execute(query)
    }


def _computed_by_others(connection: Connection, claim: Claim, keys: Sequence[str]) -> set[str]:
    if not keys:
        return set()
    query = select(in_flight.c.key).where(in_flight.c.key.in_(keys), ~_is_of(claim), _counts())
    return set(connection.execute(query).scalars())


def _is_of(claim: Claim) -> ColumnElement[bool]:
    return (in_flight.c.chunk == claim.chunk) & (in_flight.c.token == claim.token)


def _counts() -> ColumnElement[bool]:
    """A condition on a mark: whoever made it still holds the lease that it was made under."""
    held = and_(
        chunk.c.id == in_flight.c.chunk,
        chunk.c.token == in_flight.c.token,
        chunk.c.state == ChunkState.LEASED,
        chunk.c.lease_until > now(),
    )
    return select(literal(1)).where(held).exists()


def _pieces(keys: Collection[str]) -> Iterator[list[str]]:
    """``keys`` without repetitions, some at a time."""
    ordered = list(dict.fromkeys(keys))
    return (ordered[start : start + SOME_KEYS] for start in range(0, len(ordered), SOME_KEYS))
