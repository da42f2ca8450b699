"""What the API takes: bodies and query parameters."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from tasks.conversation import MAX_PROMPTS, NewPrompt
from tasks.errors import InvalidInput
from tasks.prompt_schema import MAX_NAME, Messages, Name, PromptBody, Text
from tasks.run_schema import MAX_SAMPLES, Deadline, Samples
from tasks.sampling import SamplingSettings
from tasks.schema import Characters, Many, Said, Schema, TextOr, one_of, whole
from tasks.states import RunKind
from web.schema.values import FromText

MAX_PAGE = 1000

Names = Annotated[
    list[Annotated[str, Characters(MAX_NAME)]],
    Many("names", 1000),
    Said("must be a list of names; GET /api/models shows them"),
]


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
    deadline: Deadline | None = Field(default=None, description="Seconds that one completion may take")
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
