"""A step's kernel calls, made again at once where a step has the same shape as one before.

Between two kernels Python takes as long as a small kernel itself. Where a model is computed by nothing but the engine's
kernels, and all that they read and write lies at the same places, the calls of one step serve for all like it.
"""

import logging
import math
import weakref
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.engine.batch import BatchMetadata
from worker.engine.cache import SlotCache
from worker.engine.native import Call, Native
from worker.engine.tracer import Program

logger = logging.getLogger(__name__)

MOST_SHAPES = 256  # that calls are kept of
MOST_SEEN = 4096

Block = np.ndarray[Any, np.dtype[np.uint8]]


class Memory:
    """Where the results between kernels lie: given out again as soon as nobody holds the tensor or a view of it.

    All recorded steps share it, as only one runs at a time.
    """

    def __init__(self) -> None:
        self._free: defaultdict[int, list[Block]] = defaultdict(list)
        self._blocks: dict[int, Block] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        # Powers of two, so that steps of other shapes find blocks that fit.
        rounded = 1 << (size - 1).bit_length()
        free = self._free[rounded]
        block = free.pop() if free else torch.empty(rounded, dtype=torch.uint8).numpy()
        lent = block[:size]
        weakref.finalize(lent, free.append, block).atexit = False
        made = torch.from_numpy(lent).view(dtype).view(shape)
        self._blocks[made.data_ptr()] = block
        return made

    def again(self, place: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor at a place where one has been, without a claim to it: it is overwritten when others are made."""
        return torch.from_numpy(self._blocks[place][: math.prod(shape) * dtype.itemsize]).view(dtype).view(shape)


@dataclass(frozen=True)
class Inputs:
    """What a model is computed from, as `worker.engine.recorder` says."""

    ids: Tensor
    positions: Tensor
    kept: Tensor


@dataclass(frozen=True)
class CapturedStep:
    """The calls of a step. ``reads`` are what they read: ids, positions, kept places, and the batch's tensors."""

    calls: list[Call]
    steps: Any
    reads: tuple[Tensor, ...]
    out: tuple[int, tuple[int, ...], torch.dtype]  # its place, shape and format


class CapturedSteps:
    """Computes ``program``, from the second step of a shape on by replaying.

    ``program`` must compute by nothing but the kernels of ``native``, which must be nobody else's meanwhile. What
    `run` returns is overwritten by the next call.
    """

    def __init__(self, program: Program, native: Native):
        self._program = program
        self._native = native
        self._memory = Memory()
        self._keeps, self._proven = True, False
        self._seen: set[tuple[int, ...]] = set()
        self._steps: dict[tuple[int, ...], CapturedStep] = {}

    def run(self, inputs: Inputs, cache: SlotCache) -> Tensor:
        """Logits ``[1, kept, vocabulary]``. `SlotCache.begin` has been called."""
        batch = cache.batch
        shape = (batch.tokens, len(inputs.kept), cache.capacity, torch.get_num_threads())
        step = self._steps.get(shape)
        if step is not None:
            return self._replay(step, _reads(inputs, batch))
        if self._keeps and shape in self._seen:
            return self._capture(shape, inputs, cache)
        if batch.tokens == inputs.ids.numel():
            self._seen.add(shape)
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()
        return self._program(inputs.ids, inputs.positions, inputs.kept)

    def _replay(self, step: CapturedStep, reads: tuple[Tensor, ...]) -> Tensor:
        for place, new in zip(step.reads, reads, strict=True):
            place.copy_(new)
        self._native.replay(step.steps)
        return self._memory.again(*step.out)

    def _capture(self, shape: tuple[int, ...], inputs: Inputs, cache: SlotCache) -> Tensor:
        """Compute a step and keep its calls. The first that are kept must give the same again."""
        reads = tuple(each.clone() for each in _reads(inputs, cache.batch))
        cache.batch.slots, cache.batch.positions = reads[3:]
        try:
            with self._native.capturing(self._memory.empty) as calls:
                out = self._program(*reads[:3])
        except NotImplementedError as error:
            logger.info("the calls of a step are not kept: %s", error)
            self._keeps = False
            return self._program(*reads[:3])
        step = CapturedStep(calls, self._native.steps(calls), reads, (out.data_ptr(), tuple(out.shape), out.dtype))
        if not self._proven:
            expected = out.clone()
            self._proven = torch.equal(self._replay(step, reads).view(torch.uint8), expected.view(torch.uint8))
            if not self._proven:
                logger.warning("a step computes something else when its calls are made again, so none are kept")
                self._keeps = False
                return expected
        if len(self._steps) == MOST_SHAPES:
            del self._steps[next(iter(self._steps))]
        self._steps[shape] = step
        return out


def _reads(inputs: Inputs, batch: BatchMetadata) -> tuple[Tensor, ...]:
    return inputs.ids, inputs.positions, inputs.kept, batch.slots, batch.positions
