"""One chunk's way through a worker: claim, generate, write, finish."""

import logging
import queue
import resource
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from tasks.errors import Unavailable
from tasks.ledger import MAX_ATTEMPTS, Lease, Ledger
from tasks.ledger.records import Claim, Completion
from tasks.queue.dispatch import Dispatcher
from tasks.queue.live import Live, LiveEvent
from tasks.registry import ModelEntry
from tasks.sampling import Sampling, merge
from tasks.settings import Settings
from tasks.states import FinishReason, Outcome, RunKind, WorkerState
from worker.backends.protocol import Answer, Backend, Failure, Generation, Increment
from worker.chunk_work import ChunkWork, Key
from worker.isolation import Isolation

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
        self.speed: float | None = None
        self.state = WorkerState.LOADING
        self.stopping: float | None = None
        self.stalled = False
        self.clock = time.time() - time.monotonic()
        self._isolation = Isolation()
        self._places = {lane: threading.BoundedSemaphore(places) for lane, places in THREADS.items()}
        self._cold = True
        self._in_flight = 0
        self._finished = 0
        self._busy_since = 0.0
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """Chunks that this worker holds."""
        return self._in_flight

    def generate(self, chunk_id: int) -> None:
        """Do a chunk if it is to be had. Whatever goes wrong, the ledger and the sweeper put it right."""
        found = self.ledger.chunks.peek(chunk_id)
        # A bulk chunk that finds no place is sent again by the sweeper, to whoever has one.
        if found is None or not self._places[found[0]].acquire(blocking=False):
            return
        lane, attempts = found
        try:
            with self._isolation.alone() if attempts >= MAX_ATTEMPTS - 1 else self._isolation.shared():
                self._claim(chunk_id)
        finally:
            self._places[lane].release()

    def _claim(self, chunk_id: int) -> None:
        if self.stopping or self.stalled:
            return
        claim = self.ledger.chunks.claim(chunk_id, self.worker, self.entry.identity)
        if claim is None:
            return
        try:
            finished = self._run(claim)
        except BaseException:
            self.ledger.chunks.fail(claim)
            raise
        if finished:
            self.dispatcher.request_scores(claim.chunk)
        self.dispatcher.dispatch(self.entry.name)

    def _run(self, claim: Claim) -> bool:
        """Work on a claimed chunk; tells whether it was finished. Raises `BackendFailed`."""
        work = ChunkWork(claim)
        self._count_in()
        try:
            self._submit(work, claim.missing)
            held = self._attend(work)
        finally:
            self._count_out(len(claim.missing) - work.open)
            for generation_id in work.generations:
                self.backend.cancel(generation_id)
        return held and (work.ended or self.ledger.chunks.finish(claim))

    def _submit(self, work: ChunkWork, keys: Sequence[Key]) -> None:
        """Start what can start; what follows a turn of this chunk starts when that is answered."""
        keys = work.ready(keys)
        while keys:
            key, *keys = keys
            answer = work.impossible(key)
            if answer is None:
                self._start(work, key)
            else:
                keys += self._finish(work, key, answer)

    def _start(self, work: ChunkWork, key: Key) -> None:
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
        )
        work.generations[generation.id] = key
        self.backend.submit(generation, work.events.put)

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
            self._show(work)
            if work.open and time.monotonic() < write_at:
                continue
            write_at = time.monotonic() + WRITE_SECONDS
            if not self._write(work) or not (work.ended or self._keep_lease(work)):
                return False
        return True

    def _take(self, work: ChunkWork, seconds: float) -> None:
        """Take in the events of the next ``seconds``, fewer when nothing is open any more."""
        until = time.monotonic() + seconds
        while work.open and (left := until - time.monotonic()) > 0:
            try:
                event = work.events.get(timeout=left)
            except queue.Empty:
                return
            key = work.generations[event.generation_id]
            if isinstance(event, Increment):
                work.show(key, event.text, event.thinking, event.restarts)
                continue
            if isinstance(event, Failure):
                event = self._given_up(work, event)
            del work.generations[event.generation_id]
            self._submit(work, self._finish(work, key, event))

    def _finish(self, work: ChunkWork, key: Key, answer: Answer) -> list[Key]:
        """Note a completion that has ended; returns those that waited for it."""
        # Before it is stored, and before it is part of what later turns ask: no database stores NUL.
        answer = replace(answer, text=answer.text.replace("\x00", ""), thinking=answer.thinking.replace("\x00", ""))
        work.finished.append(self._completion(work.claim, *key, answer))
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

    def _show(self, work: ChunkWork) -> None:
        if work.live:
            self.live.publish(work.claim.run, [self._event(work, key, *texts) for key, texts in work.live.items()])
        work.live.clear()

    def _event(self, work: ChunkWork, key: Key, text: str = "", thinking: str = "") -> LiveEvent:
        # Not the number of the attempt, which restarts could reach, and which a retry or a release sets back.
        beginning = round(work.claim.claimed * 1e6)
        return LiveEvent("", work.claim.model, *key, beginning + work.restarts.get(key, 0), text, thinking)

    def _write(self, work: ChunkWork) -> bool:
        """Store what has finished, and with the last of it the end of the chunk; False when the lease was lost.

        While the ledger is away the results wait here, as long as the lease may hold.
        """
        if not work.finished:
            return True
        try:
            last = not work.open
            made_with = self.backend.description.environment
            held = self.ledger.chunks.write(work.claim, work.finished, made_with, last, work.rendered)
        except Unavailable as error:
            logger.warning("%s", error)
            time.sleep(WRITE_SECONDS)  # where nothing is open any more, nothing else takes time
            return time.monotonic() - work.renewed < self.settings.lease
        if held and work.claim.kind is RunKind.ARENA:
            ended = [self._event(work, (row.idx, row.sample)) for row in work.finished]
            self.live.publish(work.claim.run, ended)
        work.finished.clear()
        work.rendered.clear()
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
        stalled = self.backend.progress == work.progress
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
        return lease is not Lease.LOST

    def _completion(self, claim: Claim, idx: int, sample: int, answer: Answer) -> Completion:
        points = (answer.admitted, answer.first_token, answer.last_token, answer.answer_started)
        times = [None if point is None else point + self.clock for point in points]
        cold, self._cold = self._cold, self._cold and answer.finish_reason.outcome is not Outcome.DONE
        return Completion(
            run=claim.run,
            model=claim.model,
            idx=idx,
            sample=sample,
            text=answer.text,
            finish_reason=answer.finish_reason,
            error=answer.error,
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens,
            characters=len(answer.text),
            created=claim.prompts[idx].created or claim.created,
            enqueued=claim.enqueued,
            claimed=claim.claimed,
            admitted=times[0],
            first_token=times[1],
            last_token=times[2],
            batch_size=answer.batch_size,
            cold=cold,
            attempt=claim.attempt,
            seed=self._sampling(claim, idx, sample).seed,
            worker=self.worker,
            peak_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            thinking=answer.thinking or None,
            thinking_tokens=answer.thinking_tokens,
            answer_started=times[3],
            retries=answer.retries,
        )

    def _count_in(self) -> None:
        with self._lock:
            if not self._in_flight:
                self._busy_since, self._finished = time.monotonic(), 0
            self._in_flight += 1

    def _count_out(self, completions: int) -> None:
        """Measure the speed over the time since this worker was last idle."""
        with self._lock:
            self._in_flight -= 1
            self._finished += completions
            self.speed = self._finished / max(time.monotonic() - self._busy_since, 1e-3)
