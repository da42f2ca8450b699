"""How long a run will take, before it is queued and while it runs: a range for each model and for the whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tasks.ledger.speeds import Recent
from tasks.measures.speed import NONE, Span, Spell, Work, time_of

CHARACTER_TOKENS = 1.0  # a bound for models whose tokens were not counted yet
TRUSTED = 32  # completions of a run that tell as much as another run like it


class NoEstimate(StrEnum):
    """Why there is no number: none is made up."""

    NOT_MEASURED = "not_measured"
    NO_WORKER = "no_worker"
    FIRST_LOAD = "first_load"
    PAUSED = "paused"

    @property
    def words(self) -> str:
        return {
            NoEstimate.NOT_MEASURED: "not measured yet; ask it one prompt",
            NoEstimate.NO_WORKER: "no worker runs it; start one",
            NoEstimate.FIRST_LOAD: "its worker loads for the first time; wait until it is ready",
            NoEstimate.PAUSED: "the run is paused; resume it",
        }[self]


@dataclass(frozen=True)
class ModelEstimate:
    """Seconds until a model has done its part, between ``low`` and ``high`` in about 80 % of all cases.

    Both are None where a ``reason`` forbids a number. ``wait`` is what of it goes to other runs, ``load`` to loading.
    ``too_long`` prompts do not fit into the model's context; where they are ``guessed``, they *may* be too long: the
    model's tokens were not counted yet.
    """

    low: float | None = None
    high: float | None = None
    reason: NoEstimate | None = None
    wait: float = 0.0
    load: float = 0.0
    too_long: int = 0
    guessed: bool = False


@dataclass(frozen=True)
class Estimate:
    """Seconds until a run is done. Its models run side by side, so that the slowest decides.

    ``low`` is what the known ones take at least; ``high`` is None where any is not known.
    """

    models: Mapping[str, ModelEstimate]
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Situation:
    """How a model stands: ``ahead`` completions of other runs come first, and loading takes ``load`` (None: unknown).

    ``workers`` are those that are ready or will be; without any nothing is done.
    """

    workers: int
    load: Span | None = NONE
    ahead: int = 0


def estimate_model(
    work: Work, spells: Sequence[Spell], situation: Situation, recent: Recent | None = None
) -> ModelEstimate:
    """How long a model takes over ``work``; ``recent`` is what the run has got of it lately, where it runs."""
    if not work.completions:
        return ModelEstimate(0.0, 0.0)
    if not situation.workers:
        return ModelEstimate(reason=NoEstimate.NO_WORKER)
    if situation.load is None:
        return ModelEstimate(reason=NoEstimate.FIRST_LOAD)
    now = _now(work, recent, spells)
    if not spells and not now:
        return ModelEstimate(reason=NoEstimate.NOT_MEASURED)
    left = replace(work, completions=work.completions - _begun(work)) if now else work
    own = time_of(left, spells, now, now.completions / TRUSTED if now else 0.0)
    # How fast the run goes shows already what it loses to others.
    wait = NONE if now or not situation.ahead else time_of(_others(work, situation.ahead), spells)
    whole = own + wait + situation.load
    return ModelEstimate(whole.low, whole.high, wait=wait.middle, load=situation.load.middle)


def combined(models: Mapping[str, ModelEstimate]) -> Estimate:
    """The estimate of a whole run."""
    lows = [one.low for one in models.values() if one.low is not None]
    highs = [one.high for one in models.values() if one.high is not None]
    return Estimate(models, max(lows, default=None), max(highs) if highs and len(highs) == len(models) else None)


def too_long(lengths: Mapping[int, int], context: int | None, tokens_a_character: float | None) -> tuple[int, bool]:
    """How many prompts, by their characters, leave no room in a context for an answer, and whether that is a guess."""
    if not context:
        return 0, False
    each = CHARACTER_TOKENS if tokens_a_character is None else tokens_a_character
    number = sum(prompts for characters, prompts in lengths.items() if characters * each >= context)
    return number, bool(number) and tokens_a_character is None


def _now(work: Work, recent: Recent | None, spells: Sequence[Spell]) -> Spell | None:
    """The speed of a run that is under way, as a spell of its own."""
    if not recent or not recent.completions:
        return None
    return Spell(
        completions=recent.completions + (_begun(work) if recent.is_whole else 0.0),
        seconds=recent.seconds,
        in_flight=min(work.slots, recent.completions),
        characters=work.characters or 0.0,
        limit=work.limit,
        answers=spells[0].answers if spells else (),
        workers=work.workers,
        beside=work.beside,
    )


def _begun(work: Work) -> float:
    """How many completions the work comes to that is done of those in flight: half of them, on the average."""
    return min(work.slots * work.workers, work.completions) / 2


def _others(work: Work, completions: int) -> Work:
    return Work(completions, None, work.limit, work.slots, work.workers, work.beside)
