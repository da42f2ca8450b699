"""A prompt as programs and files write it in JSON: a text or a conversation, and what belongs to it."""

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from tasks.conversation import (
    MAX_MESSAGES,
    MAX_PROMPT_CHARACTERS,
    MAX_PROMPTS,
    Message,
    NewPrompt,
    Role,
    filled,
    split,
)
from tasks.errors import InvalidInput
from tasks.sampling import SamplingSettings
from tasks.schema import LONE_SURROGATE, Characters, Many, Schema, one_of, whole

MAX_NAME = 100
MAX_CUSTOM_ID = 512
MAX_MANY = 100
MAX_CHECK_CHARACTERS = 8000
MAX_CHECK_DEPTH = 8


def check_of(value: Any) -> dict[str, Any]:
    """One check of a prompt: an object with a text ``type`` and whatever that type needs. It is stored as it is."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or not 1 <= len(kind) <= 100:
        raise PydanticCustomError("check", 'must be an object with a "type" of 1 to 100 characters')
    problem = _unstorable(value, MAX_CHECK_DEPTH)
    if not problem and len(json.dumps(value, ensure_ascii=False)) > MAX_CHECK_CHARACTERS:
        problem = f"is too large; its JSON may have {MAX_CHECK_CHARACTERS} characters"
    if problem:
        raise PydanticCustomError("check", "{problem}", {"problem": problem})
    return dict(value)


def _unstorable(value: Any, depth: int) -> str | None:
    """What keeps a JSON value from being stored by every database."""
    if isinstance(value, str):
        if LONE_SURROGATE.search(value):
            return "has half a surrogate pair, which is no character; send it as UTF-8"
        return "has a NUL character; remove it" if "\x00" in value else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "has a number that is not finite; JSON has none"
    if not isinstance(value, Mapping | list):
        return None
    if not depth:
        return f"is nested too deeply; {MAX_CHECK_DEPTH} levels are the limit"
    inner = [*value, *value.values()] if isinstance(value, Mapping) else value
    return next((problem for item in inner if (problem := _unstorable(item, depth - 1))), None)


Text = Annotated[str, Characters(MAX_PROMPT_CHARACTERS)]
Name = Annotated[str, Characters(MAX_NAME, 1)]
Check = Annotated[
    dict[str, Any],
    BeforeValidator(check_of),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"type": {"type": "string", "minLength": 1, "maxLength": MAX_NAME}},
            "required": ["type"],
            "description": f"Further keys are free; its JSON has at most {MAX_CHECK_CHARACTERS} characters",
        }
    ),
]


class MessageBody(Schema):
    """One message of a conversation."""

    role: Annotated[Role, one_of(*Role)]
    content: Text


Messages = Annotated[list[MessageBody], Many("messages, the last of the user", MAX_MESSAGES, 1)]


class PromptBody(Schema):
    """A prompt: a text or a conversation, and what belongs to it."""

    prompt: Text | None = Field(default=None, description="The user's message; give this or `messages`")
    messages: Messages | None = None
    system: Text | None = Field(default=None, description="The system message, where `messages` has none")
    category: Name | None = None
    reference: Text | None = Field(default=None, description="An answer known to be right")
    checks: Annotated[list[Check], Many("checks", MAX_MANY)] = Field(
        default_factory=list, description="What an answer has to fulfil"
    )
    tags: Annotated[list[Name], Many("tags", MAX_MANY)] = Field(default_factory=list)
    variables: Annotated[dict[Name, Text], Many("texts by name", MAX_MANY)] | None = Field(
        default=None, description="What stands for `{{name}}` in the messages"
    )
    custom_id: Annotated[str, Characters(MAX_CUSTOM_ID, 1)] | None = Field(
        default=None, description="An id of your own"
    )
    sampling: SamplingSettings | None = Field(
        default=None, description="Decoding settings of this prompt, before those of its run"
    )
    follows: Annotated[int, whole(0, MAX_PROMPTS - 1)] | None = Field(
        default=None, description="Index (from 0) of the prompt whose conversation this one continues"
    )

    @model_validator(mode="after")
    def _says_something_once(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one_of", "must have either prompt or messages")
        return self

    def to_prompt(self, field: str, system: str | None = None) -> NewPrompt:
        """The prompt as the service takes it; ``system`` is that of the whole run. Raises `InvalidInput`."""
        said, history, text = self._said(f"{field}.messages" if field else "messages")
        if said is not None and self.system is not None:
            problem = f"{field or 'The body'} has two system messages; give one."
            raise InvalidInput(problem, f"{field}.system".strip("."))
        own = self.system if said is None else said
        prompt = NewPrompt(
            text=text,
            system=system if own is None and self.follows is None else own,
            history=history,
            follows=self.follows,
            category=self.category,
            reference=self.reference,
            checks=tuple(self.checks),
            tags=tuple(self.tags),
            variables=self.variables,
            custom_id=self.custom_id,
            sampling=self.sampling.model_dump(exclude_none=True) or None if self.sampling else None,
        )
        return filled(prompt, field or "prompt")

    def _said(self, field: str) -> tuple[str | None, tuple[Message, ...], str]:
        if self.messages is None:
            return None, (), self.prompt or ""
        return split((Message(message.role, message.content) for message in self.messages), field)
