"""What figures are made of: at most so many completions, found through an index however large a run is."""

from dataclasses import dataclass

from sqlalchemy import Connection, Subquery, func, select

from tasks.ledger.tables import completion, run

SAMPLE = 3000
KEY = tuple(completion.primary_key.columns)


@dataclass(frozen=True)
class Sample:
    """At most ``size`` completions, an equal share of each model.

    Of one run they are of prompts that are spread evenly over what is done of it; else they are the newest of all.
    """

    models: tuple[str, ...]
    run: str | None = None
    size: int = SAMPLE


def keys_of(connection: Connection, sample: Sample, model: str) -> Subquery:
    """The keys of a model's completions in a sample."""
    if sample.run is None:
        newest = select(*KEY).where(completion.c.model == model).order_by(completion.c.written.desc())
        return newest.limit(_share(sample)).subquery()
    here = (completion.c.run == sample.run) & (completion.c.model == model)
    return select(*KEY).where(here, completion.c.idx.in_(prompts_of(connection, sample, model))).subquery()


def prompts_of(connection: Connection, sample: Sample, model: str) -> list[int]:
    """The prompts of a sample of one run, of which a model has completions."""
    here = (completion.c.run == sample.run) & (completion.c.model == model)
    samples = select(run.c.samples).where(run.c.id == sample.run).scalar_subquery()
    last = select(func.max(completion.c.idx)).where(here).scalar_subquery()
    number, last_idx = connection.execute(select(samples, last)).one()
    return spread(0 if last_idx is None else last_idx + 1, max(1, _share(sample) // (number or 1)))


def _share(sample: Sample) -> int:
    """How many completions there may be of each model."""
    return max(1, sample.size // len(sample.models))


def spread(number: int, most: int) -> list[int]:
    """At most ``most`` of the whole numbers below ``number``, spread evenly."""
    return list(range(number)) if number <= most else [i * number // most for i in range(most)]
