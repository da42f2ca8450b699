"""What web and command line do: submit, cancel, look. The one door to ledger, queue and live text."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from redis.exceptions import RedisError

from tasks.celery import make_app
from tasks.dispatch import Dispatcher, DispatchThread
from tasks.errors import InvalidInput
from tasks.ledger import Ledger
from tasks.ledger.records import NewPrompt, NewRun, Run
from tasks.live import Live
from tasks.prompts import checked
from tasks.registry import Registry
from tasks.sampling import check_settings
from tasks.settings import Settings
from tasks.states import RunKind

ARENA_PROMPTS = 8  # a run up to this many prompts is taken for one that a person watches
MAX_SAMPLES = 16
CHUNK_SECONDS = 1.5
FIRST_CHUNK = 8
MAX_CHUNK = 128


class Service:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.registry = Registry.load(settings.models)
        self.ledger = Ledger(settings)
        self.live = Live(settings.redis_url)
        self.dispatching = DispatchThread(Dispatcher(make_app(settings), self.ledger, settings))

    def submit(
        self,
        *,
        prompts: Iterable[NewPrompt],
        models: list[str] | None,
        sampling: Mapping[str, Any],
        owner: str,
        samples: int = 1,
        kind: RunKind | None = None,
        idempotency_key: str | None = None,
        title: str = "",
    ) -> tuple[Run, bool]:
        """Store a run and set it going; returns it and whether it is new. ``prompts`` is read once, as a stream.

        When this returns the run is committed. Raises `InvalidInput`, `NotFound` (a model), `Conflict` (an
        idempotency key used for another request) and `Unavailable`.
        """
        names = self.registry.choose(models)
        if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples <= MAX_SAMPLES:
            raise InvalidInput(f"samples must be a whole number from 1 to {MAX_SAMPLES}.", "samples")
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= 128:
            raise InvalidInput("Idempotency-Key must have 1 to 128 characters.", "Idempotency-Key")
        stream = checked(prompts)
        beginning = list(itertools.islice(stream, ARENA_PROMPTS + 1))
        kind = kind or (RunKind.ARENA if len(beginning) <= ARENA_PROMPTS else RunKind.BULK)
        new = NewRun(
            kind=kind,
            owner=owner,
            chunk_sizes={name: self.chunk_size(name, samples) for name in names},
            sampling=check_settings(sampling),
            samples=samples,
            title=title,
            idempotency_key=idempotency_key,
        )
        run, is_new = self.ledger.runs.submit(new, itertools.chain(beginning, stream))
        if is_new:
            self.dispatching.request(names)
        return run, is_new

    def chunk_size(self, model: str, samples: int) -> int:
        """Prompts a chunk: about `CHUNK_SECONDS` of the model's measured speed."""
        speed = self.ledger.workers.speed(model)
        completions = FIRST_CHUNK if speed is None else speed * CHUNK_SECONDS
        return max(1, min(MAX_CHUNK, round(completions / samples)))

    def cancel(self, run_id: str) -> Run:
        """End a run; what a worker has of it is kept. Raises `NotFound`."""
        self.ledger.control.cancel(run_id)
        return self.ledger.runs.get(run_id)

    def redis_alive(self) -> bool:
        try:
            return bool(self.live.client.ping())
        except RedisError:
            return False
