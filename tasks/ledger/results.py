"""Results of a run: its prompts in their order, each with what the models answered, read in step and in pages."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, func, select

from tasks.conversation import Conversation, Message, Role
from tasks.errors import NotFound
from tasks.ledger.closing import is_there
from tasks.ledger.database import Database
from tasks.ledger.predecessors import ancestors_of
from tasks.ledger.records import Completion, Prompt, prompt_from
from tasks.ledger.samples import spread
from tasks.ledger.tables import completion, prompt, run, score
from tasks.states import FinishReason, Origin

PAGE = 1000  # completions
LINKS = 10_000
COLUMNS = tuple(prompt.c.keys())
LOOKED_AT = 100  # prompts whose environments are looked for

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """A prompt and the completions of it that there are, by model in the order that was asked for, then by sample.

    ``scores`` are values by metric of the completion at the same place. ``earlier`` are the results of the turns
    before it, the first turn first, without scores.
    """

    prompt: Prompt
    completions: tuple[Completion, ...] = ()
    scores: tuple[Scores, ...] = ()
    earlier: tuple["Result", ...] = ()

    def answer(self, model: str, sample: int) -> Completion | None:
        return next((row for row in self.completions if row.model == model and row.sample == sample), None)

    def messages(self, model: str, sample: int) -> Conversation:
        """The whole conversation that a completion answers: earlier turns, what was answered to them, this turn."""
        said: list[Message] = []
        for turn in self.earlier:
            answered = turn.answer(model, sample)
            said += [*turn.prompt.messages, Message(Role.ASSISTANT, answered.text if answered else "")]
        return (*said, *self.prompt.messages)


class Results:
    def __init__(self, database: Database):
        self.database = database

    def pages(self, run_id: str, models: Sequence[str], samples: int) -> Iterator[list[Result]]:
        """Every prompt of a run with the completions of these models, some at a time; memory stays that of one page.

        Raises `NotFound` where the run is deleted meanwhile, so that half a run is not taken for all of it.
        """
        number = max(1, PAGE // (max(1, len(models)) * max(1, samples)))
        first = 0
        while page := self._page(run_id, models, first, number):
            yield page
            first = page[-1].prompt.idx + 1

    def metrics(self, run_id: str, models: Collection[str]) -> list[str]:
        """The metrics that a run's completions have scores of, by name."""
        query = select(score.c.metric).distinct().where(score.c.run == run_id, score.c.model.in_(models))
        with self.database.read() as connection:
            return sorted(connection.execute(query).scalars())

    def means(self, run_id: str, model: str) -> dict[str, tuple[int, float]]:
        """How many scores a model has in a run and their mean, by metric."""
        here = (score.c.run == run_id) & (score.c.model == model)
        query = select(score.c.metric, func.count(), func.avg(score.c.value)).where(here).group_by(score.c.metric)
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(score.c.metric))
            return {metric: (number, mean) for metric, number, mean in rows}

    def tokens(self, run_id: str, model: str) -> tuple[int, int]:
        """Tokens of a model's prompts and of its answers in a run, as far as they are known."""
        here = (completion.c.run == run_id) & (completion.c.model == model)
        sums = select(func.sum(completion.c.prompt_tokens), func.sum(completion.c.output_tokens)).where(here)
        with self.database.read() as connection:
            asked, said = connection.execute(sums).one()
        return int(asked or 0), int(said or 0)

    def environments(self, run_id: str, models: Sequence[str], prompts: int) -> set[str]:
        """Ids of the environments of completions that are spread over a run: of nearly always all that it has."""
        looked_at = spread(prompts, LOOKED_AT)
        here = (completion.c.run == run_id) & completion.c.model.in_(models) & completion.c.idx.in_(looked_at)
        query = select(completion.c.environment).distinct().where(here, completion.c.environment.is_not(None))
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def followed(self, run_id: str, prompts: int) -> bytearray:
        """For each of the first ``prompts`` prompts, whether another follows it."""
        marks = bytearray(prompts)
        for _, follows in self._links(run_id):
            if follows < prompts:
                marks[follows] = True
        return marks

    def late_turns(self, run_id: str) -> dict[int, list[int]]:
        """Turns that were added when other conversations had begun, by the idx of their conversation's first turn."""
        late: dict[int, list[int]] = {}
        roots: dict[int, int] = {}
        root, previous = -1, -1
        for idx, follows in self._links(run_id):
            root = root if idx == previous + 1 else idx - 1
            previous = idx
            if follows in roots or follows < root:
                roots[idx] = roots[follows] if follows in roots else self._root(run_id, follows)
                late.setdefault(roots[idx], []).append(idx)
        return late

    def _root(self, run_id: str, idx: int) -> int:
        """The first turn of the conversation that a turn was handed in with."""
        firsts = select(prompt.c.idx).where(prompt.c.run == run_id, prompt.c.idx <= idx, prompt.c.follows.is_(None))
        with self.database.read() as connection:
            return connection.execute(firsts.order_by(prompt.c.idx.desc()).limit(1)).scalar_one()

    def _links(self, run_id: str) -> Iterator[tuple[int, int]]:
        """Each prompt that follows another: its idx and that of the other, in order."""
        after = -1
        follows = select(prompt.c.idx, prompt.c.follows).where(prompt.c.run == run_id, prompt.c.follows.is_not(None))
        while True:
            with self.database.read() as connection:
                query = follows.where(prompt.c.idx > after).order_by(prompt.c.idx).limit(LINKS)
                found = [(row.idx, row.follows) for row in connection.execute(query)]
            if not found:
                return
            yield from found
            after = found[-1][0]

    def _page(self, run_id: str, models: Sequence[str], first: int, number: int) -> list[Result]:
        with self.database.read() as connection:
            if connection.execute(select(run.c.id).where(run.c.id == run_id, is_there)).first() is None:
                raise NotFound(f"There is no run {run_id!r}; it has been deleted.")
            asked = select(prompt).where(prompt.c.run == run_id, prompt.c.idx >= first).order_by(prompt.c.idx)
            stored = connection.execute(asked.limit(number)).all()
            prompts = [prompt_from(dict(zip(COLUMNS, row, strict=True))) for row in stored]
            if not prompts:
                return []
            last = prompts[-1].idx
            answers = _completions(connection, run_id, models, completion.c.idx.between(first, last))
            scores = _scores(connection, run_id, models, first, last)
            before = ancestors_of(connection, run_id, prompts)
            said = _completions(connection, run_id, models, completion.c.idx.in_(before)) if before else {}
        turns: dict[int, Result] = {}
        for each in sorted(before.values(), key=lambda one: one.idx):
            turns[each.idx] = Result(each, tuple(said.get(each.idx, ())), (), _before(turns, each))
        page = []
        for each in prompts:
            rows = tuple(answers.get(each.idx, ()))
            values = tuple(scores.get((row.model, row.idx, row.sample), {}) for row in rows)
            turns[each.idx] = Result(each, rows, values, _before(turns, each))
            page.append(turns[each.idx])
        return page


def _before(turns: Mapping[int, Result], following: Prompt) -> tuple[Result, ...]:
    previous = None if following.follows is None else turns.get(following.follows)
    return (*previous.earlier, replace(previous, scores=())) if previous else ()


NAMES = [field.name for field in fields(Completion)]
FINISH_REASONS = {reason.value: reason for reason in FinishReason}
ORIGINS = {origin.value: origin for origin in Origin}


def _completions(connection: Connection, run_id: str, models: Sequence[str], which: Any) -> dict[int, list[Completion]]:
    """Completions by prompt, of each by model and sample. The key begins with run and model: one range a model."""
    found: dict[int, list[Completion]] = {}
    for model in models:
        here = (completion.c.run == run_id) & (completion.c.model == model) & which
        query = select(*(completion.c[name] for name in NAMES)).where(here)
        for row in connection.execute(query.order_by(completion.c.idx, completion.c.sample)).all():
            found.setdefault(row.idx, []).append(_completion(row))
    return found


def _completion(row: Sequence[Any]) -> Completion:
    # A frozen dataclass sets its fields one by one, which for 33 of them takes as long as all else of a row.
    values = dict(zip(NAMES, row, strict=True))
    values["finish_reason"] = FINISH_REASONS[values["finish_reason"]]
    values["origin"] = ORIGINS[values["origin"]]
    made = object.__new__(Completion)
    made.__dict__.update(values)
    return made


def _scores(
    connection: Connection, run_id: str, models: Sequence[str], first: int, last: int
) -> dict[tuple[str, int, int], dict[str, float]]:
    """Values by metric, by (model, idx, sample)."""
    found: dict[tuple[str, int, int], dict[str, float]] = {}
    for model in models:
        here = (score.c.run == run_id) & (score.c.model == model) & score.c.idx.between(first, last)
        query = select(score.c.idx, score.c.sample, score.c.metric, score.c.value).where(here)
        rows = connection.execute(query.order_by(score.c.idx, score.c.sample, score.c.metric)).all()
        for idx, sample, metric, value in rows:
            found.setdefault((model, idx, sample), {})[metric] = value
    return found
