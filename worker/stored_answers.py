"""Answers that need not be computed here: those that are stored, and those that somebody is computing just now."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tasks.errors import Unavailable
from tasks.ledger import Ledger
from tasks.ledger.records import Completion
from tasks.ledger.stored_answers import Found, StoredAnswer
from tasks.states import Outcome
from worker.backends.protocol import Generation
from worker.chunk_work import ChunkWork, Key, Told

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 0.3


@dataclass(frozen=True)
class Sorted:
    """Completions of a chunk that are to begin; what is in neither is awaited."""

    stored: Mapping[Key, StoredAnswer] = field(default_factory=dict)
    to_compute: Mapping[Key, Generation] = field(default_factory=dict)


class StoredAnswers:
    """What the chunks of a worker need not compute.

    No two chunks ever wait for each other: what a chunk has marked as its own it computes at once, whatever else it
    waits for, and takes the mark back when that comes to nothing. The ledger is asked again every `AGAIN_SECONDS`;
    chunks of this process tell each other.
    """

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self._listeners: dict[str, list[ChunkWork]] = {}
        self._lock = threading.Lock()

    def sort(self, work: ChunkWork, generations: Mapping[Key, Generation], again: bool = False) -> Sorted:
        """Find out what becomes of completions that could begin now, or that were awaited and are looked at ``again``.

        While the ledger is away everything is computed, except what is awaited.
        """
        work.asked = time.monotonic()
        wanted = {one.answer_key for one in generations.values() if one.answer_key is not None}
        asked = sorted(wanted - work.known.keys() - set(work.keyed.values())) if not work.claim.fresh else []
        found = self._take(work, asked, again)
        stored: dict[Key, StoredAnswer] = {}
        to_compute: dict[Key, Generation] = {}
        answers, ours = {**found.answers, **work.known}, wanted if work.claim.fresh else set(found.ours)
        for key, generation in generations.items():
            name = generation.answer_key
            if name is None:
                to_compute[key] = generation
            elif name in answers and not work.claim.fresh:
                stored[key] = answers[name]
            elif name in ours:
                to_compute[key], work.keyed[key] = generation, name
                work.settled.discard(name)
                if not work.claim.fresh:
                    ours.discard(name)  # whatever else of the chunk asks the same awaits it
            else:
                work.awaited[key] = generation
                self._listen(name, work)
        return Sorted(stored, to_compute)

    def settle(self, work: ChunkWork, key: Key, completion: Completion) -> Completion:
        """Note that a completion is no longer being computed; returns it with the key that it is found by.

        It has none where it has not ended well: then it is computed again by whoever needs it.
        """
        name = work.keyed.pop(key, None)
        if name is None:
            return completion
        work.settled.add(name)
        if completion.finish_reason.outcome is not Outcome.DONE:
            return completion
        answer = StoredAnswer(
            completion.text,
            completion.finish_reason,
            completion.prompt_tokens,
            completion.output_tokens,
            completion.thinking,
            completion.thinking_tokens,
        )
        if not work.claim.fresh:
            work.known[name] = answer
        with self._lock:
            listeners = self._listeners.pop(name, [])
        for listener in listeners:
            listener.events.put(Told(name, answer))
        return replace(completion, cache_key=name)

    def leave(self, work: ChunkWork) -> None:
        """Forget a chunk that nothing is to be told any more."""
        with self._lock:
            for name, listeners in list(self._listeners.items()):
                self._listeners[name] = [one for one in listeners if one is not work]
                if not self._listeners[name]:
                    del self._listeners[name]

    def _take(self, work: ChunkWork, names: list[str], again: bool) -> Found:
        if not names:
            return Found()
        try:
            return self.ledger.stored_answers.take(work.claim, names)
        except Unavailable as error:
            logger.warning("%s", error)
            return Found() if again else Found(ours=frozenset(names))

    def _listen(self, name: str, work: ChunkWork) -> None:
        with self._lock:
            listeners = self._listeners.setdefault(name, [])
            if all(one is not work for one in listeners):
                listeners.append(work)
