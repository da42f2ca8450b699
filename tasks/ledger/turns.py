"""Whose turn it is: how free places are shared between the runs that wait for a model."""

import heapq
from collections.abc import Collection
from dataclasses import dataclass

from tasks.states import RunKind


@dataclass(frozen=True)
class Waiting:
    """A run with chunks to give. ``dispatched`` is when it last gave one to the model, 0 for never.

    ``number`` tells runs of one moment apart, as clocks have ticks: that which came first has the lower one.
    """

    run: str
    owner: str
    priority: int
    dispatched: float
    created: float
    number: int


def share(waiting: Collection[Waiting], places: int) -> list[str]:
    """The runs that get the next ``places`` places, turn by turn.

    Only those of the highest priority get any. Among them owners take turns, and each owner's runs do; who
    was served longest ago is next, and of those never served the run that came first.
    """
    highest = max((one.priority for one in waiting), default=0)
    queues: dict[str, list[tuple[float, tuple[float, int], str]]] = {}
    served: dict[str, float] = {}
    for one in waiting:
        if one.priority == highest:
            queues.setdefault(one.owner, []).append((one.dispatched, (one.created, one.number), one.run))
            served[one.owner] = max(served.get(one.owner, 0.0), one.dispatched)
    for queue in queues.values():
        heapq.heapify(queue)
    owners = [(served[owner], queue[0][1], owner) for owner, queue in queues.items()]
    heapq.heapify(owners)
    turn = max(served.values(), default=0.0)
    given: list[str] = []
    for _ in range(places if owners else 0):
        turn += 1.0
        owner = heapq.heappop(owners)[2]
        _, came, run = heapq.heappop(queues[owner])
        given.append(run)
        heapq.heappush(queues[owner], (turn, came, run))
        heapq.heappush(owners, (turn, queues[owner][0][1], owner))
    return given


@dataclass(frozen=True)
class Queued:
    """A run with so many completions that a model has still to compute."""

    run: str
    owner: str
    kind: RunKind
    priority: int
    completions: int


def ahead(queued: Collection[Queued], mine: Queued) -> int:
    """How many completions of other runs a model computes before it has done all of ``mine``.

    Arena runs and those of a higher priority come first whole. Beside it, each owner gets as much as its own, and of
    its own owner's runs each gets as much as it, as long as they have something: that is what `share` comes to.
    """
    others = [one for one in queued if one.run != mine.run]
    rank = _rank(mine)
    first = sum(one.completions for one in others if _rank(one) > rank)
    beside = [one for one in others if _rank(one) == rank]
    siblings = sum(min(one.completions, mine.completions) for one in beside if one.owner == mine.owner)
    owners: dict[str, int] = {}
    for one in beside:
        if one.owner != mine.owner:
            owners[one.owner] = owners.get(one.owner, 0) + one.completions
    turns = mine.completions + siblings
    return first + siblings + sum(min(number, turns) for number in owners.values())


def _rank(one: Queued) -> tuple[bool, int]:
    return one.kind is RunKind.ARENA, one.priority
