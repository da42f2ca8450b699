"""Who runs in the next step. Pure decisions over token counts; no tensor is touched here."""

import heapq
from dataclasses import dataclass
from typing import NamedTuple

from tasks.states import FinishReason
from worker.engine.sequence import Sequence

LEAST_PREFIX = 16  # tokens below which copying a prefix is not worth the look
SLOTS_PER_RESERVE = 8
LEAST_SLOTS_TO_RESERVE = 4
IDLE_FACTOR = 4  # how much more of prompts a step may read while no running row waits for it


class Chunk(NamedTuple):  # made for every row of every step: a frozen dataclass costs three times as much
    """The next ``count`` tokens of a sequence, from ``start`` on, for the model to read."""

    sequence: Sequence
    start: int
    count: int  # type: ignore[assignment]  # hides the tuple's method

    @property
    def length(self) -> int:
        """Tokens of the sequence that the cache holds afterwards."""
        return self.start + self.count

    @property
    def samples(self) -> bool:
        """Whether the sequence's next token follows from this chunk."""
        return self.length == len(self.sequence.tokens)


@dataclass(frozen=True)
class Copy:
    """The first ``count`` positions of slot ``source`` are to be copied to slot ``target``."""

    source: int
    target: int
    count: int


@dataclass(frozen=True)
class Plan:
    """One step: copies within the cache, in order, then the chunks, in the order of their slots."""

    copies: tuple[Copy, ...]
    chunks: tuple[Chunk, ...]


class Scheduler:
    """Gives slots to sequences and tokens of each step to slots.

    At every step waiting sequences are admitted by urgency; one that finds no slot takes that of the last to come of
    a lower priority, which waits again and later reads anew what it had. A step reads one token of every sequence
    that is past its prompt and at most ``prefill_tokens`` tokens of prompts. With ``fixed_chunks`` what is read
    together depends on nothing else: a step reads whole chunks of one prompt, no prefix is shared, and instead of
    one sequence taking another's slot, one slot in eight (at least one of four) is kept free of priorities above 0.
    """

    def __init__(self, slots: int, prefill_tokens: int, *, fixed_chunks: bool = False):
        self.prefill_tokens = prefill_tokens
        self.fixed_chunks = fixed_chunks
        self._waiting: list[tuple[tuple[int, int], Sequence]] = []
        self._owners: list[Sequence | None] = []
        self.resize(slots)

    def resize(self, slots: int) -> None:
        """Start over with ``slots`` empty slots; whatever was running waits again, keeping its tokens."""
        for sequence in self.running:
            sequence.slot, sequence.cached = -1, 0
            self.add(sequence)
        self.slots = slots
        self._owners = [None] * slots
        self._held: list[list[int]] = [[] for _ in range(slots)]

    @property
    def running(self) -> list[Sequence]:
        """In the order of their slots."""
        return [sequence for sequence in self._owners if sequence is not None]

    @property
    def sequences(self) -> list[Sequence]:
        """All that wait or run."""
        return [sequence for _, sequence in self._waiting] + self.running

    @property
    def count(self) -> int:
        """How many wait or run."""
        return len(self._waiting) + len(self.running)

    @property
    def reserve(self) -> int:
        """Slots that only priority 0 may take."""
        if not self.fixed_chunks or self.slots < LEAST_SLOTS_TO_RESERVE:
            return 0
        return max(1, self.slots // SLOTS_PER_RESERVE)

    def add(self, sequence: Sequence) -> None:
        heapq.heappush(self._waiting, (sequence.urgency, sequence))

    def drop_ended(self) -> None:
        """Forget the sequences that have a reason; the tokens in their slots may still serve as a prefix."""
        if any(sequence.reason is not None for _, sequence in self._waiting):
            self._waiting = [entry for entry in self._waiting if entry[1].reason is None]
            heapq.heapify(self._waiting)
        for slot, sequence in enumerate(self._owners):
            if sequence is not None and sequence.reason is not None:
                self._owners[slot] = None
                sound = sequence.reason is not FinishReason.ERROR
                self._held[slot] = sequence.tokens[: sequence.cached] if sound else []

    def plan(self) -> Plan:
        """Admit what fits and share out the next step."""
        copies = self._admit()
        copies += self._close_gaps()
        return Plan(tuple(copies), tuple(self._chunks()))

    def _admit(self) -> list[Copy]:
        copies = []
        while self._waiting and self._has_place(self._waiting[0][1]):
            copies += self._place(heapq.heappop(self._waiting)[1])
        return copies

    def _has_place(self, sequence: Sequence) -> bool:
        """Whether a slot is free for it, if need be because another had to leave."""
        running = self.running
        if len(running) < self.slots:
            bulk = sum(other.request.priority > 0 for other in running)
            return sequence.request.priority == 0 or bulk < self.slots - self.reserve
        last = max(running, key=lambda other: other.urgency)
        if self.fixed_chunks or last.request.priority <= sequence.request.priority:
            return False
        self._owners[last.slot], self._held[last.slot] = None, last.tokens[: last.cached]
        last.slot, last.cached = -1, 0
        self.add(last)
        return True

    def _place(self, sequence: Sequence) -> list[Copy]:
        """Put a sequence on the slot that holds its longest prefix, else on the first, with a copy of the prefix."""
        source, shared = self._longest_prefix(sequence.tokens)
        target = self._owners.index(None)
        if shared and self._owners[source] is None:
            target = source
        self._owners[target] = sequence
        self._held[target] = []
        sequence.slot, sequence.cached = target, shared
        return [Copy(source, target, shared)] if shared and source != target else []

    def _longest_prefix(self, tokens: list[int]) -> tuple[int, int]:
        """Slot and number of the most leading tokens that a slot holds; the last token is always read anew."""
        if self.fixed_chunks or len(tokens) <= LEAST_PREFIX:
            return 0, 0
        shared = [_shared(tokens[:-1], self._cached_tokens(slot)) for slot in range(self.slots)]
        longest = max(shared)
        return (shared.index(longest), longest) if longest >= LEAST_PREFIX else (0, 0)

    def _cached_tokens(self, slot: int) -> list[int]:
        owner = self._owners[slot]
        return self._held[slot] if owner is None else owner.tokens[: owner.cached]

    def _close_gaps(self) -> list[Copy]:
        """Move the last sequences into free slots before them: attention reads runs of neighbouring slots at once."""
        copies: list[Copy] = []
        while True:
            last = max((slot for slot, owner in enumerate(self._owners) if owner is not None), default=-1)
            gap = self._owners.index(None) if None in self._owners else self.slots
            if gap > last:
                return copies
            sequence = self._owners[last]
            assert sequence is not None
            self._owners[gap], self._owners[last] = sequence, None
            self._held[last] = sequence.tokens[: sequence.cached]
            sequence.slot = gap
            if sequence.cached:
                copies.append(Copy(last, gap, sequence.cached))

    def _chunks(self) -> list[Chunk]:
        running = self.running
        chunks = [Chunk(sequence, sequence.cached, 1) for sequence in running if sequence.pending == 1]
        reading = sorted((s for s in running if s.pending > 1), key=lambda sequence: sequence.urgency)
        if self.fixed_chunks:
            chunks += [Chunk(s, s.cached, min(s.pending, self.prefill_tokens)) for s in reading[:1]]
        else:
            budget = self.prefill_tokens * (1 if chunks else IDLE_FACTOR)
            for sequence in reading:
                count = min(sequence.pending, budget)
                if count:
                    chunks.append(Chunk(sequence, sequence.cached, count))
                budget -= count
        return sorted(chunks, key=lambda chunk: chunk.sequence.slot)


def _shared(one: list[int], other: list[int]) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))
