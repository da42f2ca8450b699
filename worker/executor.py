"""One chunk's way through a worker: claim, generate, write, finish."""

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tasks.errors import Unavailable
from tasks.ledger import MAX_ATTEMPTS, Lease, Ledger
from tasks.ledger.records import Claim, Completion
from tasks.ledger.stored_answers import StoredAnswer
from tasks.queue.dispatch import Dispatcher
from tasks.queue.live import Live
from tasks.registry import ModelEntry
from tasks.sampling import Sampling, merge
from tasks.schema import storable
from tasks.settings import Settings
from tasks.states import FinishReason, Outcome, RunKind, WorkerState
from worker import rows
from worker.backends.protocol import LATE, Answer, Backend, Event, Failure, Generation, Increment
from worker.chunk_work import ChunkWork, Key, Told
from worker.isolation import Isolation
from worker.speed import Speed
from worker.stored_answers import AGAIN_SECONDS, StoredAnswers

logger = logging.getLogger(__name__)

SHOW_SECONDS = 0.04
WRITE_SECONDS = 0.25
LOOK_SECONDS = 1.0
# Of each lane at once. What a worker is sent is less; but where many share a queue, one may be given the most of it,
# and then an arena chunk must still find a thread.
THREADS = {RunKind.ARENA: 16, RunKind.BULK: 8}
PRIORITY = {RunKind.ARENA: 0, RunKind.BULK: 1}


class BackendFailed(Exception):
    """The backend failed under a chunk; raised after what was finished of it is written."""


class ChunkExecutor:
    """Runs chunks for one model; called by Celery's pool threads, one chunk a thread.

    ``stopping`` is the point of `time.monotonic` at which this worker was told to stop; ``stalled`` says that the
    backend makes no token. Either way nothing is claimed any more.
    """

    def __init__(
        self,
        *,
        entry: ModelEntry,
        backend: Backend,
        ledger: Ledger,
        dispatcher: Dispatcher,
        live: Live,
        settings: Settings,
        worker: str,
    ):
        self.entry, self.backend, self.worker = entry, backend, worker
        self.ledger, self.dispatcher, self.live, self.settings = ledger, dispatcher, live, settings
        self.speed = Speed()
        self.state = WorkerState.LOADING
        self.stopping: float | None = None
        self.stalled = False
        self.clock = time.time() - time.monotonic()
        self._stored = StoredAnswers(ledger)
        self._isolation = Isolation()
        self._places = {lane: threading.BoundedSemaphore(places) for lane, places in THREADS.items()}
        self._cold = True

    @property
    def running(self) -> int:
        """Chunks that this worker holds."""
        return self.speed.running

    def generate(self, chunk_id: int) -> None:
        """Do a chunk if it is to be had. Whatever goes wrong, the ledger and the sweeper put it right."""
        found = self.ledger.chunks.peek(chunk_id)
        # A bulk chunk that finds no place is sent again by the sweeper, to whoever has one.
        if found is None or not self._places[found[0]].acquire(blocking=False):
            return
        lane, attempts = found
        try:
            with self._isolation.alone() if attempts >= MAX_ATTEMPTS - 1 else self._isolation.shared():
                finished = self._claim(chunk_id)
        finally:
            self._places[lane].release()
        # Without a place: of stored answers chunks end so fast that what is sent for them would find none.
        if finished:
            self.dispatcher.request_scores(chunk_id)
        if finished is not None:
            self.dispatcher.dispatch(self.entry.name)

    def _claim(self, chunk_id: int) -> bool | None:
        """Claim a chunk and work on it; tells whether it was finished, None where it was not to be had."""
        if self.stopping or self.stalled:
            return None
        claim = self.ledger.chunks.claim(chunk_id, self.worker, self.entry.identity)
        if claim is None:
            return None
        try:
            return self._run(claim)
        except BaseException:
            self.ledger.chunks.fail(claim)
            raise

    def _run(self, claim: Claim) -> bool:
        """Work on a claimed chunk; tells whether it was finished. Raises `BackendFailed`."""
        work = ChunkWork(claim)
        self.speed.begin()
        try:
            self._submit(work, claim.missing)
            held = self._attend(work)
        finally:
            self.speed.end(len(claim.missing) - work.open - work.copied)
            self._stored.leave(work)
            for generation_id in work.generations:
                self.backend.cancel(generation_id)
        return held and (work.ended or self.ledger.chunks.finish(claim))

    def _submit(self, work: ChunkWork, keys: Sequence[Key]) -> None:
        """Start what can start; what follows a turn of this chunk starts when that is answered."""
        while ready := work.ready(keys):
            generations: dict[Key, Generation] = {}
            keys = []
            for key in ready:
                answer = work.impossible(key)
                if answer is None:
                    generations[key] = self._generation(work, key)
                else:
                    keys += self._finish(work, key, answer)
            keys += self._start(work, generations)

    def _generation(self, work: ChunkWork, key: Key) -> Generation:
        claim, (idx, sample) = work.claim, key
        entry = claim.entry or self.entry
        generation = Generation(
            id=f"{claim.token}.{idx}.{sample}",
            conversation=work.conversation(key),
            entry=entry,
            sampling=self._sampling(claim, idx, sample),
            priority=PRIORITY[claim.kind],
            deadline=time.monotonic() + (claim.deadline or entry.deadline),
            streams=claim.kind is RunKind.ARENA,
            sample=sample,
        )
        # What is watched is always computed, and stored for nobody.
        return generation if claim.kind is RunKind.ARENA else self.backend.prepare(generation)

    def _start(self, work: ChunkWork, generations: Mapping[Key, Generation], again: bool = False) -> list[Key]:
        """Compute what is not stored and computed by nobody; returns what followed the stored answers."""
        found = self._stored.sort(work, generations, again)
        for key, generation in found.to_compute.items():
            work.generations[generation.id] = key
            self.backend.submit(generation, work.events.put)
        stored = found.stored.items()
        return [following for key, one in stored for following in self._copy(work, key, generations[key], one)]

    def _copy(self, work: ChunkWork, key: Key, generation: Generation, stored: StoredAnswer) -> list[Key]:
        """Take a stored answer; returns those that waited for it."""
        work.copied += 1
        work.finished.append(rows.copied(work.claim, key, stored, generation, self.worker))
        answer = Answer(generation.id, stored.text, stored.finish_reason, rendered=generation.rendered)
        return work.settle(key, answer)

    def _ask_again(self, work: ChunkWork) -> None:
        """Look whether what is awaited is there, or is to be computed here; what is late ends."""
        now = time.monotonic()
        late = work.take_awaited(lambda one: one.deadline is not None and now > one.deadline)
        following = self._end(work, late, FinishReason.DEADLINE, LATE)
        self._submit(work, following + self._start(work, work.take_awaited(), again=True))

    def _end(
        self, work: ChunkWork, awaited: Mapping[Key, Generation], reason: FinishReason, error: str | None = None
    ) -> list[Key]:
        """End what is awaited without its answer; returns what waited for it."""
        ended = ((key, Answer(one.id, "", reason, error=error)) for key, one in awaited.items())
        return [following for key, answer in ended for following in self._finish(work, key, answer)]

    def _sampling(self, claim: Claim, idx: int, sample: int) -> Sampling:
        """The prompt's settings over the run's over the model's, with a seed of this completion's own."""
        defaults = (claim.entry or self.entry).decoding
        asked = {**claim.sampling, **(claim.prompts[idx].sampling or {})}
        return merge(defaults, asked).for_completion(idx, sample)

    def _attend(self, work: ChunkWork) -> bool:
        """Write what comes until nothing is open; False when the lease was lost or given back."""
        write_at = time.monotonic() + WRITE_SECONDS
        while work.open or work.finished:
            self._take(work, SHOW_SECONDS)
            if work.live:
                self.live.publish(work.claim.run, work.take_live())
            if work.awaited and time.monotonic() - work.asked > AGAIN_SECONDS:
                self._ask_again(work)
            if work.open and time.monotonic() < write_at:
                continue
            write_at = time.monotonic() + WRITE_SECONDS
            if not self._write(work) or not (work.ended or self._keep_lease(work)):
                return False
        return True

    def _take(self, work: ChunkWork, seconds: float) -> None:
        """Take in the events of the next ``seconds``, fewer when nothing is open any more."""
        until = time.monotonic() + seconds
        following: list[Key] = []
        while (work.open or following) and (left := until - time.monotonic()) > 0:
            if following and work.events.empty():  # what ends together is asked for together
                self._submit(work, following)
                following = []
                continue
            try:
                following += self._heed(work, work.events.get(timeout=left))
            except queue.Empty:
                break
        self._submit(work, following)

    def _heed(self, work: ChunkWork, event: Event | Told) -> list[Key]:
        """Take in an event; returns what waited for it."""
        if isinstance(event, Told):
            name, stored = event.name, event.answer
            here = work.take_awaited(lambda one: one.answer_key == name)
            return [following for key, one in here.items() for following in self._copy(work, key, one, stored)]
        key = work.generations[event.generation_id]
        if isinstance(event, Increment):
            work.show(key, event.text, event.thinking, event.restarts)
            return []
        if isinstance(event, Failure):
            event = self._given_up(work, event)
        del work.generations[event.generation_id]
        return self._finish(work, key, event)

    def _finish(self, work: ChunkWork, key: Key, answer: Answer) -> list[Key]:
        """Note a completion that has ended; returns those that waited for it."""
        # Before it is stored, and before it is part of what later turns ask: no database stores NUL.
        text, thinking = (said.replace("\x00", "") for said in (answer.text, answer.thinking))
        answer = replace(answer, text=text, thinking=thinking, error=answer.error and storable(answer.error))
        work.finished.append(self._stored.settle(work, key, self._completion(work.claim, key, answer)))
        return work.settle(key, answer)

    def _given_up(self, work: ChunkWork, failure: Failure) -> Answer:
        """An attempt that the backend fails is repeated; the last one, which runs alone, shows what it failed of.

        Raises `BackendFailed` for any but the last.
        """
        if work.claim.attempt < MAX_ATTEMPTS:
            self._write(work)
            raise BackendFailed(failure.error)
        error = f"The engine failed on this prompt {MAX_ATTEMPTS} times ({failure.error}); it was given up."
        return Answer(failure.generation_id, "", FinishReason.ERROR, error=error)

    def _write(self, work: ChunkWork) -> bool:
        """Store what has finished, and with the last of it the end of the chunk; False when the lease was lost.

        While the ledger is away the results wait here, as long as the lease may hold.
        """
        if not work.finished:
            return True
        try:
            last = not work.open
            made_with = self.backend.description.environment
            held = self.ledger.chunks.write(work.claim, work.finished, made_with, last, work.rendered, work.settled)
        except Unavailable as error:
            logger.warning("%s", error)
            time.sleep(WRITE_SECONDS)  # where nothing is open any more, nothing else takes time
            return time.monotonic() - work.renewed < self.settings.lease
        if held and work.claim.kind is RunKind.ARENA:
            ended = [work.event((row.idx, row.sample)) for row in work.finished]
            self.live.publish(work.claim.run, ended)
        work.finished.clear()
        work.rendered.clear()
        work.settled.clear()
        work.ended = held and last
        return held

    def _keep_lease(self, work: ChunkWork) -> bool:
        """Look for cancellation often, renew in time; False when the chunk is to be dropped."""
        if self.stopping and time.monotonic() - self.stopping > self.settings.drain:
            self.ledger.chunks.release([work.claim])
            return False
        now = time.monotonic()
        if now - work.looked < LOOK_SECONDS:
            return True
        work.looked = now
        stalled = bool(work.generations) and self.backend.progress == work.progress
        renews = now - work.renewed >= self.settings.renew and not stalled
        try:
            lease = self.ledger.chunks.renew(work.claim) if renews else self.ledger.chunks.look(work.claim)
        except Unavailable as error:
            logger.warning("%s", error)
            return now - work.renewed < self.settings.lease
        if renews:
            work.renewed, work.progress = now, self.backend.progress
        if lease is Lease.CANCELLED:
            for generation_id in work.generations:
                self.backend.cancel(generation_id)
            self._submit(work, self._end(work, work.take_awaited(), FinishReason.CANCELLED))
        return lease is not Lease.LOST

    def _completion(self, claim: Claim, key: Key, answer: Answer) -> Completion:
        cold, self._cold = self._cold, self._cold and answer.finish_reason.outcome is not Outcome.DONE
        seed = self._sampling(claim, *key).seed
        return rows.computed(claim, key, answer, seed=seed, worker=self.worker, clock=self.clock, cold=cold)
