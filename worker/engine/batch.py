"""Which tokens of a step belong to which sequence.

Every step is one row of tokens: one token of each sequence that is past its prompt, and pieces of prompts. Only
attention cares which token belongs to whom.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

# Bytes of keys and values that are read in the time that one more call of attention costs (measured on a desktop
# CPU; an accelerator reads about fifty times faster).
CALL_BYTES = {"cpu": 400_000, "cuda": 20_000_000}


class Span(NamedTuple):
    """``count`` tokens of the step, from ``first`` on, that are the newest of a slot's ``length`` positions."""

    slot: int
    first: int
    count: int  # type: ignore[assignment]  # hides the tuple's method
    length: int


@dataclass(frozen=True)
class Group:
    """Neighbouring slots from ``slot`` on whose single tokens, from ``first`` on, share one call of attention."""

    slot: int
    first: int
    lengths: tuple[int, ...]
    mask: Tensor | None  # [slots, 1, 1, longest], 0 or -inf; None where all are equally long


@dataclass
class BatchMetadata:
    """Which tokens of a step belong to which slot and position. Tokens after the last span belong to nobody."""

    spans: Sequence[Span]
    apart: bool  # every slot gets a call of attention of its own
    device: torch.device
    slots: Tensor = field(init=False)  # [tokens], int32
    positions: Tensor = field(init=False)  # [tokens], int32
    tokens: int = field(init=False)
    _rows: tuple[int, Tensor] | None = None
    _groups: tuple[int, list[Group]] | None = None

    def __post_init__(self) -> None:
        slots = [span.slot for span in self.spans for _ in range(span.count)]
        positions = [at for span in self.spans for at in range(span.length - span.count, span.length)]
        self.slots = torch.tensor(slots, dtype=torch.int32).to(self.device, non_blocking=True)
        self.positions = torch.tensor(positions, dtype=torch.int32).to(self.device, non_blocking=True)
        self.tokens = len(slots)

    def rows(self, capacity: int) -> Tensor:
        """Where the tokens' keys go among ``[slots * capacity]`` rows: ``[tokens]``."""
        if self._rows is None or self._rows[0] != capacity:
            self._rows = capacity, self.slots.long() * capacity + self.positions
        return self._rows[1]

    def groups(self, bytes_per_position: int) -> list[Group]:
        """The single tokens in calls of attention, as few as it is worth to read positions that count for nothing."""
        if self._groups is None or self._groups[0] != bytes_per_position:
            call = 0 if self.apart else max(1, CALL_BYTES.get(self.device.type, 0) // bytes_per_position)
            singles = [span for span in self.spans if span.count == 1]
            self._groups = bytes_per_position, [self._group(part) for part in partition(singles, call)]
        return self._groups[1]

    def _group(self, spans: Sequence[Span]) -> Group:
        lengths = tuple(span.length for span in spans)
        mask = None
        if min(lengths) < max(lengths):
            ends = torch.tensor(lengths).to(self.device, non_blocking=True)
            late = torch.arange(max(lengths), device=self.device) >= ends[:, None]
            mask = torch.zeros(late.shape, device=self.device).masked_fill_(late, float("-inf"))[:, None, None]
        return Group(spans[0].slot, spans[0].first, lengths, mask)


def partition(spans: Sequence[Span], call: int) -> list[Sequence[Span]]:
    """Cut ``spans`` into runs of neighbouring slots at the least cost in positions read.

    A run costs ``call`` positions and, for each of its slots, the length of its longest; with ``call`` 0 every slot
    is a run of its own.
    """
    if call == 0:
        return [[span] for span in spans]
    best = [0]
    cuts = [0]
    for end in range(1, len(spans) + 1):
        longest, cheapest, cut = 0, -1, end - 1
        for start in range(end - 1, -1, -1):
            if start < end - 1 and not _are_neighbours(spans[start], spans[start + 1]):
                break
            longest = max(longest, spans[start].length)
            cost = best[start] + call + longest * (end - start)
            if cheapest < 0 or cost < cheapest:
                cheapest, cut = cost, start
        best.append(cheapest)
        cuts.append(cut)
    runs: list[Sequence[Span]] = []
    end = len(spans)
    while end:
        runs.append(spans[cuts[end] : end])
        end = cuts[end]
    return runs[::-1]


def _are_neighbours(one: Span, other: Span) -> bool:
    return one.slot + 1 == other.slot and one.first + 1 == other.first
