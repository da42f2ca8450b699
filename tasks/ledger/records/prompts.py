"""Prompts and answers as the ledger takes and gives them."""

from dataclasses import dataclass
from typing import Any

from tasks.conversation import Message, NewPrompt, Role


@dataclass(frozen=True)
class Prompt(NewPrompt):
    """A stored prompt; ``idx`` counts from 0 within its run.

    ``created`` is when it was added to a run that was there, in seconds since 1970; None for one that came with it.
    """

    idx: int = 0
    created: float | None = None


def prompt_of(row: Any) -> Prompt:
    """A prompt from a row of its table."""
    return prompt_from(dict(zip(row._fields, row, strict=True)))


def prompt_from(values: dict[str, Any]) -> Prompt:
    """A prompt from the values of its table's columns by name, which become its own."""
    del values["run"]
    values["history"] = tuple(Message(Role(said["role"]), said["content"]) for said in values["history"] or ())
    values["checks"] = tuple(values["checks"] or ())
    values["tags"] = tuple(values["tags"] or ())
    return Prompt.made(values)


def columns_of(prompt: NewPrompt) -> dict[str, Any]:
    """A prompt as the columns of its table, without run and idx."""
    return {
        "text": prompt.text,
        "system": prompt.system,
        "history": [message.to_dict() for message in prompt.history] or None,
        "follows": prompt.follows,
        "category": prompt.category,
        "reference": prompt.reference,
        "checks": [dict(check) for check in prompt.checks] or None,
        "tags": list(prompt.tags) or None,
        "variables": dict(prompt.variables) if prompt.variables else None,
        "custom_id": prompt.custom_id,
        "sampling": dict(prompt.sampling) if prompt.sampling else None,
    }


@dataclass(frozen=True)
class NewAnswer:
    """An answer that was made elsewhere, to the prompt with this ``custom_id``, else with this ``prompt``'s text.

    Where that prompt begins a conversation, ``turn`` says which of its turns is meant (from 0). ``model`` is who gave
    it, where its file says so; ``line`` is where in the file it stands (from 1).
    """

    text: str
    custom_id: str | None = None
    prompt: str | None = None
    turn: int = 0
    sample: int = 0
    model: str | None = None
    line: int = 0


@dataclass(frozen=True)
class Imported:
    """What came of answers that were handed in: ``unmatched`` are the lines of those that found no prompt."""

    columns: tuple[str, ...]
    taken: int
    unmatched_count: int
    unmatched: tuple[int, ...]


@dataclass(frozen=True)
class PromptSet:
    """Prompts that some runs have in common: the digest of their texts, their number and how many runs there are."""

    digest: str
    name: str | None
    prompts: int
    runs: int


@dataclass(frozen=True)
class Upload:
    """A file that was handed in. ``digest`` is its SHA-256 in hexadecimal, ``created`` seconds since 1970."""

    id: str
    name: str
    purpose: str
    bytes: int
    digest: str
    owner: str
    created: float
