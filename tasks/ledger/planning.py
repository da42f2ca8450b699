"""How the prompts of a run are cut into chunks, so that all turns of a conversation lie in one."""

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from tasks.ledger.database import Database, now
from tasks.ledger.tables import chunk, prompt, run
from tasks.run_schema import ARENA_PROMPTS
from tasks.states import ChunkState, RunKind

AT_ONCE = 10_000  # rows that are handed to the database together
MAX_CHUNKS = 100_000  # of a model that are stored in one transaction, which others wait for


@dataclass(frozen=True)
class Samples:
    """The samples ``first`` to ``first + count`` of each prompt of a chunk."""

    first: int
    count: int


def size_for(prompts: int, wanted: int) -> int:
    """The size of chunks of so many prompts that are stored in one transaction, where ``wanted`` may be too many."""
    return max(wanted, -(-prompts // MAX_CHUNKS))


def parts(first: int, end: int, size: int, continuing: Sequence[int], full: bool = False) -> Iterator[tuple[int, int]]:
    """Cut the prompts ``first`` to ``end`` into (first, count) of about ``size`` each.

    A part ends before a prompt that is not among ``continuing``, which are in order. ``full`` leaves out the last
    part where it is smaller than ``size``.
    """
    while first < end:
        stop = _border(first + size, end, continuing)
        if full and stop < first + size:
            return
        yield first, stop - first
        first = stop


def _border(wanted: int, end: int, continuing: Sequence[int]) -> int:
    """The first index from ``wanted`` on, at most ``end``, where a part may end."""
    at = bisect.bisect_left(continuing, wanted)
    while wanted < end and at < len(continuing) and continuing[at] == wanted:
        wanted, at = wanted + 1, at + 1
    return min(wanted, end)


def continuing(turns: Iterable[tuple[int, int]]) -> list[int]:
    """Of prompts (idx, follows) that follow others, in order: those that go on with the conversation just before them.

    A turn that was added later follows one that lies further back; it begins a part as a first turn does.
    """
    found: list[int] = []
    root = before = -1
    for idx, follows in turns:
        if idx != before + 1:
            root = idx - 1
        before = idx
        if follows < root:
            root = idx
        else:
            found.append(idx)
    return found


class Turns:
    """Which prompts of a run go on with the conversation just before them.

    Most are read before the transaction that plans chunks, which is to be short: prompts that are there never change.
    """

    def __init__(self, database: Database, run_id: str):
        self.run_id = run_id
        with database.read() as connection:
            self._known = connection.execute(select(run.c.prompts).where(run.c.id == run_id)).scalar() or 0
            self._continuing = self._read(connection, self._known)

    def of_first(self, connection: Connection, prompts: int) -> list[int]:
        """Those of the first ``prompts`` prompts."""
        return self._continuing if prompts == self._known else self._read(connection, prompts)

    def _read(self, connection: Connection, prompts: int) -> list[int]:
        here = (prompt.c.run == self.run_id) & (prompt.c.idx < prompts) & prompt.c.follows.is_not(None)
        rows = connection.execute(select(prompt.c.idx, prompt.c.follows).where(here).order_by(prompt.c.idx))
        return continuing((row.idx, row.follows) for row in rows)


def insert_chunks(
    connection: Connection,
    run_id: str,
    model: str,
    lane: RunKind,
    samples: Samples,
    ranges: Iterable[tuple[int, int]],
    state: ChunkState = ChunkState.PENDING,
    added: bool = False,
) -> None:
    """Store a chunk for each range (first, count) of prompts; ``added``: to a run that is there."""
    statement = insert(chunk).values(created=now()) if added else insert(chunk)
    same: dict[str, Any] = {"run": run_id, "model": model, "lane": lane, "state": state}
    same |= {"first_sample": samples.first, "samples": samples.count}
    rows = (same | {"first": first, "count": count} for first, count in ranges)
    while some := list(itertools.islice(rows, AT_ONCE)):
        connection.execute(statement, some)


def lane_of(of_run: Any, prompts: int) -> RunKind:
    """The lane for chunks of so many prompts that are added to a run: nobody watches a file of them."""
    return RunKind(of_run.kind) if prompts <= ARENA_PROMPTS else RunKind.BULK
