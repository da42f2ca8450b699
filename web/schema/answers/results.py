"""Answers with what a run holds."""

from typing import Annotated, Any

from pydantic import Field

from tasks.conversation import Role
from tasks.states import FinishReason, Origin
from web.schema.answers.base import Answer

Maybe = Annotated[float | None, Field(description="Seconds; null where it is not known")]


class SaidMessage(Answer):
    """One message of a conversation."""

    role: Role
    content: str


class Prompt(Answer):
    """A prompt; `messages` are its own, without those of the prompt that it follows."""

    idx: int
    messages: list[SaidMessage]
    follows: int | None
    category: str | None
    reference: str | None
    checks: list[dict[str, Any]]
    tags: list[str]
    variables: dict[str, str] | None
    custom_id: str | None
    sampling: dict[str, Any] | None = Field(description="Decoding settings of its own")


class Prompts(Answer):
    """A page of prompts of a run, by index."""

    prompts: list[Prompt]
    next: int | None = Field(description="Give it as `after` for the following page")


class Phases(Answer):
    """The latency of one completion, phase by phase; null where a point of time is missing."""

    queue: Maybe
    load: Maybe
    slot_wait: Maybe
    ttft: Maybe
    tpot: Maybe
    service: Maybe
    e2e: Maybe
    output_rate: float | None = Field(description="Tokens a second")
    characters_per_second: float | None
    ms_a_character: float | None
    output_tokens: int | None
    characters: int | None
    cold: bool


class Completion(Answer):
    """A completion that has ended."""

    run: str
    model: str
    idx: int = Field(description="Index of its prompt, from 0")
    sample: int
    text: str = Field(description="The answer, without the thinking before it")
    finish_reason: FinishReason
    error: str | None
    prompt_tokens: int | None
    output_tokens: int | None = Field(description="Tokens of thinking and answer together")
    characters: int
    created: float | None
    enqueued: float | None
    claimed: float | None
    admitted: float | None
    first_token: float | None
    last_token: float | None
    written: float
    batch_size: int | None
    cold: bool = Field(description="Its worker had to load the model for it")
    attempt: int
    seed: int | None
    worker: str | None
    peak_rss: int | None = Field(description="Bytes")
    peak_device_memory: int | None = Field(description="Bytes")
    energy_joules: float | None
    environment: str | None
    thinking: str | None
    thinking_tokens: int | None
    answer_started: float | None = Field(description="When the first character after the thinking came")
    retries: int = Field(description="How often the backend had to ask again")
    origin: Origin = Field(description="`cached`: the stored answer to the same question; `imported`: made elsewhere")
    cache_key: str | None = Field(description="Digest of everything that decides the answer, where that is known")
    is_empty: bool = Field(description="It ended well and says nothing")
    phases: Phases


class Completions(Answer):
    """A page of completions, by prompt, model and sample."""

    completions: list[Completion]
    next: str | None = Field(description="Give it as `after` for the following page")


class Score(Answer):
    """What was measured of one completion, by metric and version."""

    model: str
    idx: int
    sample: int
    values: dict[str, float]


class Scores(Answer):
    """A page of scores, by prompt, model and sample."""

    scores: list[Score]
    next: str | None = Field(description="Give it as `after` for the following page")


class Rendered(Answer):
    """A prompt as its model saw it, after the template."""

    text: str | None = Field(description="Null where only the token ids are known")
    tokens: list[int]


class LineProblem(Answer):
    """A line of a file that cannot be taken."""

    line: int
    reason: str
    remedy: str


class Imported(Answer):
    """Answers that were taken in."""

    columns: list[str] = Field(description="Names of the columns that were added")
    taken: int
    unmatched_count: int = Field(description="How many found no prompt")
    unmatched: list[int] = Field(description="Lines of the first of those")
    problem_count: int = Field(description="How many lines hold no answer, such as those that say they failed")
    problems: list[LineProblem] = Field(description="The first of those")


class PromptSet(Answer):
    """A set of prompts that runs have in common."""

    digest: str
    name: str | None
    prompts: int
    runs: int


class PromptSets(Answer):
    """All sets of prompts."""

    sets: list[PromptSet]
