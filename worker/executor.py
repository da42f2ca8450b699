"""One chunk's way through a worker: claim, generate, write, finish."""

import logging
import queue
import resource
import threading
import time
from dataclasses import dataclass, field

from tasks.errors import Unavailable
from tasks.ledger import MAX_ATTEMPTS, Lease, Ledger
from tasks.ledger.records import Claim, Completion
from tasks.queue.dispatch import Dispatcher
from tasks.queue.live import Live, LiveEvent
from tasks.registry import ModelSpec
from tasks.sampling import Sampling, merge
from tasks.settings import Settings
from tasks.states import FinishReason, Outcome, RunKind, WorkerState
from worker.backends.loaded import LoadedModel
from worker.backends.loop import EngineLoop, Failure
from worker.engine.protocol import Delta, Event, Request, Result
from worker.isolation import Isolation

logger = logging.getLogger(__name__)

SHOW_SECONDS = 0.04
WRITE_SECONDS = 0.25
LOOK_SECONDS = 1.0
# Of each lane at once. What a worker is sent is less; but where many share a queue, one may be given the most of it,
# and then an arena chunk must still find a thread.
THREADS = {RunKind.ARENA: 16, RunKind.BULK: 8}
PRIORITY = {RunKind.ARENA: 0, RunKind.BULK: 1}

Key = tuple[int, int]


@dataclass
class Work:
    """A claimed chunk in this worker: what is open, what is finished but not written, what was renewed when."""

    claim: Claim
    requests: dict[str, Key]
    events: "queue.SimpleQueue[Event | Failure]"
    finished: list[Completion] = field(default_factory=list)
    live: dict[Key, str] = field(default_factory=dict)
    renewed: float = field(default_factory=time.monotonic)
    looked: float = field(default_factory=time.monotonic)
    progress: int = -1
    ended: bool = False


class EngineFailed(Exception):
    """The engine failed under a chunk; raised after what was finished of it is written."""


class ChunkExecutor:
    """Runs chunks for one model; called by Celery's pool threads, one chunk a thread.

    ``stopping`` is the point of `time.monotonic` at which this worker was told to stop; ``stalled`` says that the
    engine makes no token. Either way nothing is claimed any more.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        model: LoadedModel,
        loop: EngineLoop,
        ledger: Ledger,
        dispatcher: Dispatcher,
        live: Live,
        settings: Settings,
        worker: str,
    ):
        self.spec, self.model, self.loop, self.worker = spec, model, loop, worker
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
        claim = None if self.stopping or self.stalled else self.ledger.chunks.claim(chunk_id, self.worker)
        if claim is None:
            return
        try:
            finished = self._run(claim)
        except BaseException:
            self.ledger.chunks.fail(claim)
            raise
        if finished:
            self.dispatcher.request_scores(claim.chunk)
        self.dispatcher.dispatch(self.spec.name)

    def _run(self, claim: Claim) -> bool:
        """Work on a claimed chunk; tells whether it was finished. Raises `EngineFailed`."""
        events: queue.SimpleQueue[Event | Failure] = queue.SimpleQueue()
        work = Work(claim, {}, events)
        self._count_in()
        try:
            self._submit_all(work)
            held = self._attend(work)
        finally:
            self._count_out(len(claim.missing) - len(work.requests))
            for request_id in work.requests:
                self.loop.cancel(request_id)
        return held and (work.ended or self.ledger.chunks.finish(claim))

    def _submit_all(self, work: Work) -> None:
        claim = work.claim
        for idx, sample in claim.missing:
            request = Request(
                id=f"{claim.token}.{idx}.{sample}",
                prompt=self.spec.render(claim.prompts[idx].text),
                sampling=self._sampling(claim, idx, sample),
                priority=PRIORITY[claim.kind],
                deadline=time.monotonic() + (claim.deadline or self.spec.deadline),
                streams=claim.kind is RunKind.ARENA,
            )
            work.requests[request.id] = (idx, sample)
            self.loop.submit(request, work.events.put)

    def _sampling(self, claim: Claim, idx: int, sample: int) -> Sampling:
        """The run's settings over the model's defaults, with a seed of this completion's own."""
        return merge(self.spec.decoding, claim.sampling).for_completion(idx, sample)

    def _attend(self, work: Work) -> bool:
        """Write what comes until nothing is open; False when the lease was lost or given back."""
        write_at = time.monotonic() + WRITE_SECONDS
        while work.requests or work.finished:
            self._take(work, SHOW_SECONDS)
            self._show(work)
            if work.requests and time.monotonic() < write_at:
                continue
            write_at = time.monotonic() + WRITE_SECONDS
            if not self._write(work) or not (work.ended or self._keep_lease(work)):
                return False
        return True

    def _take(self, work: Work, seconds: float) -> None:
        """Take in the events of the next ``seconds``, fewer when nothing is open any more."""
        until = time.monotonic() + seconds
        while work.requests and (left := until - time.monotonic()) > 0:
            try:
                event = work.events.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(event, Failure):
                self._take_failure(work, event)
            elif isinstance(event, Delta):
                key = work.requests[event.request_id]
                work.live[key] = work.live.get(key, "") + event.text
            else:
                idx, sample = work.requests.pop(event.request_id)
                work.finished.append(self._completion(work.claim, idx, sample, event))

    def _take_failure(self, work: Work, failure: Failure) -> None:
        """An attempt that the engine fails is repeated; the last one, which runs alone, shows what it failed of."""
        if work.claim.attempt < MAX_ATTEMPTS:
            self._write(work)
            raise EngineFailed(failure.error)
        idx, sample = work.requests.pop(failure.request_id)
        error = f"The engine failed on this prompt {MAX_ATTEMPTS} times ({failure.error}); it was given up."
        result = Result(failure.request_id, "", FinishReason.ERROR, 0, 0, None, None, None, 0, error)
        work.finished.append(self._completion(work.claim, idx, sample, result))

    def _show(self, work: Work) -> None:
        if work.live:
            claim = work.claim
            events = [
                LiveEvent("", claim.model, idx, sample, claim.attempt, text)
                for (idx, sample), text in work.live.items()
            ]
            self.live.publish(claim.run, events)
        work.live.clear()

    def _write(self, work: Work) -> bool:
        """Store what has finished, and with the last of it the end of the chunk; False when the lease was lost.

        While the ledger is away the results wait here, as long as the lease may hold.
        """
        if not work.finished:
            return True
        try:
            last = not work.requests
            held = self.ledger.chunks.write(work.claim, work.finished, self.model.environment, last)
        except Unavailable as error:
            logger.warning("%s", error)
            return time.monotonic() - work.renewed < self.settings.lease
        work.finished.clear()
        work.ended = held and last
        return held

    def _keep_lease(self, work: Work) -> bool:
        """Look for cancellation often, renew in time; False when the chunk is to be dropped."""
        if self.stopping and time.monotonic() - self.stopping > self.settings.drain:
            self.ledger.chunks.release([work.claim])
            return False
        now = time.monotonic()
        if now - work.looked < LOOK_SECONDS:
            return True
        work.looked = now
        stalled = self.loop.engine.progress == work.progress
        renews = now - work.renewed >= self.settings.renew and not stalled
        try:
            lease = self.ledger.chunks.renew(work.claim) if renews else self.ledger.chunks.look(work.claim)
        except Unavailable as error:
            logger.warning("%s", error)
            return now - work.renewed < self.settings.lease
        if renews:
            work.renewed, work.progress = now, self.loop.engine.progress
        if lease is Lease.CANCELLED:
            for request_id in work.requests:
                self.loop.cancel(request_id)
        return lease is not Lease.LOST

    def _completion(self, claim: Claim, idx: int, sample: int, result: Result) -> Completion:
        points = (result.admitted, result.first_token, result.last_token)
        admitted, first_token, last_token = (None if point is None else point + self.clock for point in points)
        cold, self._cold = self._cold, self._cold and result.finish_reason.outcome is not Outcome.DONE
        return Completion(
            run=claim.run,
            model=claim.model,
            idx=idx,
            sample=sample,
            text=result.text.replace("\x00", ""),
            finish_reason=result.finish_reason,
            error=result.error,
            prompt_tokens=result.prompt_tokens,
            output_tokens=result.output_tokens,
            characters=len(result.text),
            created=claim.created,
            enqueued=claim.enqueued,
            claimed=claim.claimed,
            admitted=admitted,
            first_token=first_token,
            last_token=last_token,
            batch_size=result.batch_size,
            cold=cold,
            attempt=claim.attempt,
            seed=self._sampling(claim, idx, sample).seed,
            worker=self.worker,
            peak_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
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
