"""Asks the ledger and the registry for everything that an estimate is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.ledger import Ledger
from tasks.ledger.records import Run, Worker
from tasks.ledger.turns import Queued, ahead
from tasks.measures.estimate import (
    Estimate,
    ModelEstimate,
    NoEstimate,
    Situation,
    combined,
    estimate_model,
    too_long,
)
from tasks.measures.speed import NONE, Span, Work, spells_of, tokens_a_character
from tasks.registry import ModelEntry, Registry
from tasks.sampling import Sampling, merge
from tasks.states import RunKind, RunState, WorkerState

NEW = ""  # the id of a run that is not there yet
LOADS = 1.5  # by what loading takes longer or shorter than the last time


class Estimator:
    def __init__(self, ledger: Ledger, registry: Registry):
        self.ledger, self.registry = ledger, registry

    def before(
        self,
        names: Sequence[str],
        lengths: Mapping[int, int],
        prompts: int,
        samples: int,
        sampling: Mapping[str, Any],
        mine: Queued,
    ) -> Estimate:
        """How long a run would take that is not queued yet.

        ``lengths`` are the numbers of prompts by their characters, ``mine`` says whose it is and in which lane.
        """
        workers, clock = self.ledger.workers.all(), self.ledger.clock()
        mine = replace(mine, completions=prompts * samples)
        found = {}
        for name in names:
            entry = self.registry.get(name)
            measured = self.ledger.speeds.measured(name, entry.identity)
            limit = merge(entry.decoding, sampling).max_new_tokens
            situation = _situation(_of(workers, name, entry), clock, ahead(self.ledger.speeds.queued(name), mine))
            work = Work(
                completions=mine.completions,
                characters=_mean(lengths),
                limit=limit,
                slots=entry.slots,
                workers=max(1, situation.workers),
                beside=_sharing(workers, name, names),
            )
            spells = spells_of(measured, entry.decoding, Sampling().max_new_tokens)
            number, guessed = too_long(lengths, _context(workers, name), tokens_a_character(measured))
            found[name] = replace(estimate_model(work, spells, situation), too_long=number, guessed=guessed)
        return combined(found)

    def remaining(self, run: Run) -> Estimate:
        """How long what is pending of a run still takes; the more of it is done, the more its own speed tells."""
        workers, clock = self.ledger.workers.all(), self.ledger.clock()
        pending = [name for name in run.computed if run.models[name].pending and not run.state.is_final]
        found = {}
        for name in run.computed:
            if name not in pending:
                found[name] = ModelEstimate(0.0, 0.0)
            elif run.state is RunState.PAUSED:
                found[name] = ModelEstimate(reason=NoEstimate.PAUSED)
            else:
                found[name] = self._left(run, name, pending, workers, clock)
        return combined(found)

    def _left(
        self, run: Run, name: str, pending: Sequence[str], workers: Sequence[Worker], clock: float
    ) -> ModelEstimate:
        counts = run.models[name]
        entry = run.entries.get(name) or self.registry.models.get(name)
        if entry is None:
            return ModelEstimate(reason=NoEstimate.NO_WORKER)
        mine = Queued(run.id, run.owner, run.kind, run.priority, counts.pending)
        others = ahead(self.ledger.speeds.queued(name), mine)
        situation = _situation(_of(workers, name, entry), clock, others)
        work = Work(
            completions=counts.pending,
            characters=None,
            limit=merge(entry.decoding, run.sampling).max_new_tokens,
            slots=entry.slots,
            workers=max(1, situation.workers),
            beside=_sharing(workers, name, pending),
        )
        measured = self.ledger.speeds.measured(name, entry.identity)
        history = [one for one in measured if one.run != run.id]
        spells = spells_of(history, entry.decoding, Sampling().max_new_tokens)
        return estimate_model(work, spells, situation, self.ledger.speeds.recent(run.id, name, counts.ended))


def new_run(owner: str, kind: RunKind, priority: int = 0) -> Queued:
    """A run that is not there yet, as it would stand in the queue."""
    return Queued(NEW, owner, kind, priority, 0)


def _of(workers: Sequence[Worker], name: str, entry: ModelEntry) -> list[Worker]:
    """The workers that take runs of a model with this entry."""
    return [worker for worker in workers if worker.model == name and worker.identity in (None, entry.identity)]


def _situation(workers: Sequence[Worker], clock: float, others: int) -> Situation:
    ready = [worker for worker in workers if worker.alive and worker.state is WorkerState.READY]
    if ready:
        return Situation(len(ready), NONE, others)
    loading = [worker for worker in workers if worker.alive and worker.state is WorkerState.LOADING]
    if not loading:
        return Situation(0)
    known = next((worker.load_seconds for worker in workers if worker.load_seconds), None)
    since = max(clock - worker.started for worker in loading)
    return Situation(len(loading), None if known is None else _load(known, since), others)


def _load(known: float, since: float) -> Span:
    return Span(max(known / LOADS - since, 0.0), max(known * LOADS - since, 0.5 * known))


def _sharing(workers: Sequence[Worker], name: str, names: Sequence[str]) -> frozenset[str]:
    """The other models of a run that compute on the same cores or the same device as a model."""
    alive = [worker for worker in workers if worker.alive]
    own = [worker for worker in alive if worker.model == name]
    others = [worker for worker in alive if worker.model in names and worker.model != name]
    return frozenset(other.model for other in others if any(_shares(other, worker) for worker in own))


def _shares(one: Worker, other: Worker) -> bool:
    if one.host != other.host or one.device != other.device:
        return False
    cores, others = set(filter(None, one.cores.split(","))), set(filter(None, other.cores.split(",")))
    return not cores or not others or bool(cores & others)


def _context(workers: Sequence[Worker], name: str) -> int | None:
    facts = (worker.facts or {} for worker in workers if worker.model == name)
    return next((int(each["context"]) for each in facts if each.get("context")), None)


def _mean(lengths: Mapping[int, int]) -> float | None:
    prompts = sum(lengths.values())
    return sum(characters * number for characters, number in lengths.items()) / prompts if prompts else None
