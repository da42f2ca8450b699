"""What web and command line do: submit, cancel, look. The one door to ledger, queue and live text."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from redis.exceptions import RedisError

from tasks.conversation import NewPrompt, checked, problem_of
from tasks.errors import InvalidInput
from tasks.files.uploads import UploadStore
from tasks.ledger import Ledger
from tasks.ledger.growth import NewColumn
from tasks.ledger.records import Imported, NewAnswer, NewRun, PromptSet, Run, Wait
from tasks.measures.estimate import Estimate
from tasks.measures.estimator import Estimator, new_run
from tasks.queue.celery import make_app
from tasks.queue.dispatch import Dispatcher, DispatchThread
from tasks.queue.live import Live
from tasks.registry import Registry
from tasks.run_schema import ARENA_PROMPTS, PriorityOption, RunOptions, SetOption
from tasks.sampling import check_settings
from tasks.schema import validated
from tasks.settings import Settings
from tasks.states import RunAction, RunKind

CHUNK_SECONDS = 1.5
MAX_CHUNK = 256
BULK_SEED = 0


class Service:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.registry = Registry.load(settings.models)
        self.ledger = Ledger(settings)
        self.uploads = UploadStore(self.ledger, settings.data / "uploads")
        self.live = Live(settings.redis_url)
        self.dispatching = DispatchThread(Dispatcher(make_app(settings), self.ledger, settings))
        self._estimator = Estimator(self.ledger, self.registry)

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
        deadline: float | None = None,
        fresh: bool = False,
        set_name: str | None = None,
        batch: str | None = None,
    ) -> tuple[Run, bool]:
        """Store a run and set it going; returns it and whether it is new. ``prompts`` is read once, as a stream.

        ``deadline``: seconds a worker may take over one completion (None: as the model's entry in the registry says).
        ``fresh`` takes no stored answers, ``set_name`` names the set of the prompts where that has no name yet.
        A bulk run without a seed has `BULK_SEED`, so that the same file gives the same answers.
        When this returns the run is committed. Raises `InvalidInput`, `NotFound` (a model), `Conflict` (an
        idempotency key used for another request) and `Unavailable`.
        """
        names = self.registry.choose(models)
        given = {"samples": samples, "deadline": deadline, "idempotency_key": idempotency_key}
        options = validated(RunOptions, given)
        stream = checked(prompts)
        beginning = list(itertools.islice(stream, ARENA_PROMPTS + 1))
        kind = kind or (RunKind.ARENA if len(beginning) <= ARENA_PROMPTS else RunKind.BULK)
        new = NewRun(
            kind=kind,
            owner=owner,
            chunk_sizes={name: self.chunk_size(name, options.samples) for name in names},
            sampling=({"seed": BULK_SEED} if kind is RunKind.BULK else {}) | check_settings(sampling),
            samples=options.samples,
            title=title,
            idempotency_key=options.idempotency_key,
            deadline=options.deadline,
            entries={name: self.registry.get(name) for name in names},
            fresh=fresh,
            set_name=set_name,
            batch=batch,
        )
        run, is_new = self.ledger.runs.submit(new, itertools.chain(beginning, stream))
        if is_new:
            self.dispatching.request(names)
        return run, is_new

    def chunk_size(self, model: str, samples: int) -> int:
        """Prompts a chunk: about `CHUNK_SECONDS` of what a worker of the model does, by its reported speed.

        No fewer than half of a worker's slots: a chunk lasts as long as its longest completion, and of smaller ones
        as many as are sent ahead would leave slots empty. A speed measured with a single prompt is far too low, too.
        """
        speed = self.ledger.workers.speed(model) or 0.0
        completions = max(speed * CHUNK_SECONDS, self.registry.get(model).slots / 2)
        return max(1, min(MAX_CHUNK, round(completions / samples)))

    def _sizes(self, run: Run, samples: int) -> dict[str, int]:
        """`chunk_size` of the run's models that are in the registry."""
        return {name: self.chunk_size(name, samples) for name in run.growing if name in self.registry.models}

    def add_models(self, run_id: str, names: list[str]) -> Run:
        """Let further models of the registry answer all prompts of a run; nothing that is there changes.

        A run that has ended goes on with them. Raises `InvalidInput` (no name), `NotFound` (the run, a model) and
        `Conflict` (the run has such a column, or is being cancelled just now).
        """
        if not names:
            raise InvalidInput("There is no model; name at least one.", "models")
        samples = self.ledger.runs.get(run_id).samples
        chosen = self.registry.choose(names)
        self.ledger.growth.add_models(
            run_id, {name: NewColumn(self.registry.get(name), self.chunk_size(name, samples)) for name in chosen}
        )
        self.dispatching.request(chosen)
        return self.ledger.runs.get(run_id)

    def add_samples(self, run_id: str, number: int) -> Run:
        """Ask every model that answers here for ``number`` more answers to each prompt of a run.

        Raises `InvalidInput` (too many), `NotFound` and `Conflict` (no model answers here, or the run is being
        cancelled just now).
        """
        sizes = self._sizes(self.ledger.runs.get(run_id), max(1, number))
        self.ledger.growth.add_samples(run_id, number, sizes)
        return self._set_going(run_id)

    def add_prompts(self, run_id: str, prompts: Iterable[NewPrompt]) -> tuple[Run, int]:
        """Add prompts to a run, for every model that answers here; returns the run and the idx of the first of them.

        ``prompts`` is read once, as a stream.

        What they ``follow`` counts from 0 among themselves. All of them are there when this returns, or none. A
        request that is repeated because its answer got lost adds them again, unless they have a ``custom_id``: then
        it raises `InvalidInput`, as it does for any prompt that cannot be stored. Raises `NotFound`, `Conflict`
        (somebody else is adding, or the run is being cancelled just now) and `Unavailable`.
        """
        run = self.ledger.runs.get(run_id)
        first = self.ledger.growth.add_prompts(run_id, checked(prompts), self._sizes(run, run.samples))
        return self._set_going(run_id), first

    def import_answers(self, run_id: str, answers: Iterable[NewAnswer], label: str | None = None) -> Imported:
        """Add answers that were made elsewhere as columns of a run, named by ``label`` or by the model of each.

        All that find their prompt are there when this returns, or none. Raises `InvalidInput`, `NotFound`, `Conflict`
        (the run has such a column, or somebody else is adding) and `Unavailable`.
        """
        return self.ledger.growth.import_answers(run_id, answers, label)

    def merge(self, run_id: str, other_id: str) -> Run:
        """Add the finished columns of another run of the same prompts to a run; a name that is taken gets a number.

        Raises `NotFound`, `Conflict` (other prompts, fewer samples, nothing finished, somebody else is adding) and
        `Unavailable`.
        """
        self.ledger.growth.merge(run_id, other_id)
        return self.ledger.runs.get(run_id)

    def name_set(self, digest: str, name: str) -> PromptSet:
        """Name a set of prompts, or give it another name. Raises `InvalidInput` and `NotFound` (no run has it)."""
        return self.ledger.sets.name(digest, validated(SetOption, {"name": name}).name)

    def _set_going(self, run_id: str) -> Run:
        run = self.ledger.runs.get(run_id)
        self.dispatching.request(run.growing)
        return run

    def follow(self, run_id: str, new: NewPrompt) -> tuple[Run, int]:
        """Add a later turn to a run, for every model and sample of it; returns the run and the turn's idx.

        Raises `InvalidInput`, `NotFound` and `Conflict` (a cancelled run).
        """
        if not new.text.strip():
            raise InvalidInput("The prompt is empty; write something.", "prompt")
        if problem := problem_of(new):
            raise InvalidInput(f"The prompt {problem}", "prompt")
        if new.system is not None:
            raise InvalidInput("A later turn has the system message of the first.", "system")
        idx = self.ledger.growth.follow(run_id, new)
        return self._set_going(run_id), idx

    def waits(self, run: Run) -> dict[str, Wait]:
        """For each model of a run with something pending, why nothing of it gets done now."""
        return self.ledger.waits.of_run(run, self.registry.names)

    def give_up(self, run_id: str, model: str) -> Run:
        """Let what is pending of a run's model fail, with the reason for which it waits.

        Raises `NotFound`, and `Conflict` where the run has ended.
        """
        run = self.ledger.runs.get(run_id)
        wait = self.waits(run).get(model)
        reason = (wait.detail or wait.reason.replace("_", " ")) if wait else "nothing"
        self.ledger.control.give_up(run_id, model, f"Given up while it waited: {reason}.".replace("..", "."))
        return self.ledger.runs.get(run_id)

    def act(self, run_id: str, action: RunAction) -> Run:
        """Pause, resume or cancel a run, or do again what failed of it.

        Raises `NotFound`, and `Conflict` where the state of the run forbids it.
        """
        control = self.ledger.control
        acts = {
            RunAction.PAUSE: control.pause,
            RunAction.RESUME: control.resume,
            RunAction.CANCEL: control.cancel,
            RunAction.RETRY: control.retry,
        }
        acts[action](run_id)
        if action in (RunAction.RESUME, RunAction.RETRY):
            return self._set_going(run_id)
        return self.ledger.runs.get(run_id)

    def prioritise(self, run_id: str, priority: int) -> Run:
        """Let a run go before or after others of its kind. Raises `InvalidInput`, `NotFound` and `Conflict`."""
        wanted = validated(PriorityOption, {"priority": priority})
        self.ledger.control.prioritise(run_id, wanted.priority)
        return self.ledger.runs.get(run_id)

    def delete(self, run_id: str) -> None:
        """Remove a run with all that belongs to it. Raises `NotFound`."""
        self.ledger.control.delete(run_id)

    def redis_alive(self) -> bool:
        try:
            return bool(self.live.client.ping())
        except RedisError:
            return False

    def estimate(
        self,
        *,
        prompts: int,
        lengths: Mapping[int, int],
        models: list[str] | None,
        sampling: Mapping[str, Any],
        owner: str,
        samples: int = 1,
        kind: RunKind | None = None,
    ) -> Estimate:
        """How long a run of so many ``prompts`` would take if it were submitted now.

        ``lengths`` are the numbers of prompts by their characters, as a preview gives them. Raises `InvalidInput` and
        `NotFound` (a model).
        """
        names = self.registry.choose(models)
        lane = kind or (RunKind.ARENA if prompts <= ARENA_PROMPTS else RunKind.BULK)
        settings = check_settings(sampling)
        return self._estimator.before(names, lengths, prompts, samples, settings, new_run(owner, lane))

    def remaining(self, run: Run) -> Estimate:
        """How long what is pending of a run still takes."""
        return self._estimator.remaining(run)
