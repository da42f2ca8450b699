"""What the API takes: bodies and query parameters."""

from collections.abc import Iterator
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
from tasks.schema import Characters, Said, Schema, Seconds, one_of, whole
from tasks.service import MAX_DEADLINE, MAX_PRIORITY, MAX_SAMPLES
from tasks.states import RunKind
from web.schema.values import MAX_CHECK_CHARACTERS, FromText, Many, TextOr, check_of

MAX_PAGE = 1000
MAX_NAME = 100
MAX_MANY = 100

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
Names = Annotated[
    list[Annotated[str, Characters(MAX_NAME)]],
    Many("names", 1000),
    Said("must be a list of names; GET /api/models shows them"),
]
Samples = Annotated[int, whole(1, MAX_SAMPLES)]


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
    custom_id: Annotated[str, Characters(512, 1)] | None = Field(default=None, description="An id of your own")
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
        )
        return filled(prompt, field or "prompt")

    def _said(self, field: str) -> tuple[str | None, tuple[Message, ...], str]:
        if self.messages is None:
            return None, (), self.prompt or ""
        return split((Message(message.role, message.content) for message in self.messages), field)


class NewRun(Schema):
    """Prompts for models: a list of them, or one conversation as `messages`."""

    prompts: Annotated[list[Annotated[PromptBody, TextOr("prompt")]], Many("prompts", MAX_PROMPTS, 1)] | None = Field(
        default=None, description="Give this or `messages`"
    )
    messages: Messages | None = None
    system: Text | None = Field(default=None, description="The system message of every prompt that has none")
    models: Names | None = Field(default=None, description="Names of models; all of them where none is given")
    sampling: SamplingSettings = SamplingSettings()
    samples: Samples = Field(default=1, description="Answers of each model to each prompt")
    kind: Annotated[RunKind, one_of(*RunKind)] | None = Field(
        default=None, description="Arena runs go first; by default a run of few prompts is one"
    )
    deadline: Annotated[float, Seconds(MAX_DEADLINE)] | None = Field(
        default=None, description="Seconds that one completion may take"
    )
    title: Annotated[str, Characters(200)] = ""

    def new_prompts(self) -> Iterator[NewPrompt]:
        """The prompts in order. Raises `InvalidInput` for the first that cannot be taken."""
        if (self.prompts is None) == (self.messages is None):
            raise InvalidInput("Send either prompts, a list, or messages, which are one conversation.", "prompts")
        if self.messages is not None:
            yield PromptBody(messages=self.messages, system=self.system).to_prompt("")
        for index, prompt in enumerate(self.prompts or ()):
            if isinstance(prompt, str):
                yield NewPrompt(prompt, self.system)
            else:
                yield prompt.to_prompt(f"prompts.{index}", self.system)


class FollowUp(PromptBody):
    """A later turn of a conversation of this run."""

    follows: Annotated[int, whole(0, MAX_PROMPTS - 1)] = Field(
        description="Index (from 0) of the prompt whose conversation this one continues"
    )


class Priority(Schema):
    """Runs of a higher priority go first."""

    priority: Annotated[int, whole(-MAX_PRIORITY, MAX_PRIORITY)]


class Nothing(Schema):
    """An empty object: what acts on a run needs to be told nothing more."""


class FileQuery(Schema):
    """Beside a file that is the body."""

    name: Annotated[str, Characters(MAX_NAME * 2, 1)] = "The file"
    models: Names = Field(default_factory=list)
    samples: Annotated[Samples, FromText] = 1


class PageQuery(Schema):
    """Which completions of a run."""

    model: Annotated[str, Characters(MAX_NAME)] | None = None
    after: Annotated[str, Characters(MAX_NAME + 20)] | None = Field(
        default=None, description="What the page before gave as `next`"
    )
    limit: Annotated[int, whole(1, MAX_PAGE), FromText] = 100


class CompletionQuery(Schema):
    """One completion of a run."""

    model: Name
    idx: Annotated[int, whole(0, MAX_PROMPTS - 1), FromText]
    sample: Annotated[int, whole(0, MAX_SAMPLES - 1), FromText] = 0
