"""What a run may be asked for, beside its prompts, models and decoding settings."""

from typing import Annotated

from tasks.schema import Characters, Schema, Seconds, whole

ARENA_PROMPTS = 8  # a run up to this many prompts is taken for one that a person watches
MAX_SAMPLES = 16
MAX_PRIORITY = 9
MAX_DEADLINE = 86_400.0

Samples = Annotated[int, whole(1, MAX_SAMPLES)]
Deadline = Annotated[float, Seconds(MAX_DEADLINE)]
Priority = Annotated[int, whole(-MAX_PRIORITY, MAX_PRIORITY)]


class RunOptions(Schema):
    """Answers of each model to each prompt, seconds for one of them, and the key that makes a repeated request one."""

    samples: Samples = 1
    deadline: Deadline | None = None
    idempotency_key: Annotated[str, Characters(128, 1)] | None = None


class PriorityOption(Schema):
    """Runs of a higher priority go first."""

    priority: Priority


class SetOption(Schema):
    """What a set of prompts is called."""

    name: Annotated[str, Characters(200, 1)]
