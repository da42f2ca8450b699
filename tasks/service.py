"""What web and command line do: submit, cancel, look. The one door to ledger, queue and live text."""

from collections.abc import Mapping
from typing import Any

from redis.exceptions import RedisError

from tasks.celery import make_app
from tasks.dispatch import Dispatcher, DispatchThread
from tasks.errors import InvalidInput
from tasks.ledger import Ledger
from tasks.ledger.records import NewPrompt, NewRun, Run
from tasks.live import Live
from tasks.registry import Registry
from tasks.sampling import check_settings
from tasks.settings import Settings
from tasks.states import RunKind

ARENA_PROMPTS = 8  # a run up to this many prompts is taken for one that a person watches
MAX_PROMPTS = 1_000_000
MAX_PROMPT_CHARACTERS = 32_000
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
        prompts: list[NewPrompt],
        models: list[str] | None,
        sampling: Mapping[str, Any],
        owner: str,
        samples: int = 1,
        kind: RunKind | None = None,
        idempotency_key: str | None = None,
        title: str = "",
    ) -> tuple[Run, bool]:
        """Store a run and set it going; returns it and whether it is new.

        When this returns the run is committed. Raises `InvalidInput`, `NotFound` (a model), `Conflict` (an
        idempotency key used for another request) and `Unavailable`.
        """
        names = self.registry.choose(models)
        if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples <= MAX_SAMPLES:
            raise InvalidInput(f"samples must be a whole number from 1 to {MAX_SAMPLES}.", "samples")
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= 128:
            raise InvalidInput("Idempotency-Key must have 1 to 128 characters.", "Idempotency-Key")
        _check_prompts(prompts)
        kind = kind or (RunKind.ARENA if len(prompts) <= ARENA_PROMPTS else RunKind.BULK)
        new = NewRun(
            kind=kind,
            owner=owner,
            chunk_sizes={name: self.chunk_size(name, samples) for name in names},
            sampling=check_settings(sampling),
            samples=samples,
            title=title,
            idempotency_key=idempotency_key,
        )
        run, is_new = self.ledger.runs.submit(new, prompts)
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
        return self.ledger.runs.cancel(run_id)

    def redis_alive(self) -> bool:
        try:
            return bool(self.live.client.ping())
        except RedisError:
            return False


def _check_prompts(prompts: list[NewPrompt]) -> None:
    if not prompts:
        raise InvalidInput("There is no prompt; send at least one.", "prompts")
    if len(prompts) > MAX_PROMPTS:
        raise InvalidInput(f"{len(prompts)} prompts are too many; a run takes {MAX_PROMPTS}.", "prompts")
    for index, prompt in enumerate(prompts):
        if not prompt.text.strip():
            raise InvalidInput(f"Prompt {index + 1} is empty; write something or leave it out.", f"prompts.{index}")
        if len(prompt.text) > MAX_PROMPT_CHARACTERS:
            too_long = f"Prompt {index + 1} has {len(prompt.text)} characters; the limit is {MAX_PROMPT_CHARACTERS}."
            raise InvalidInput(too_long, f"prompts.{index}")
        if "\x00" in prompt.text:
            raise InvalidInput(f"Prompt {index + 1} contains a NUL character; remove it.", f"prompts.{index}")
