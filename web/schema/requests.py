"""What the API takes: bodies and query parameters."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from tasks.conversation import MAX_PROMPTS, NewPrompt
from tasks.errors import InvalidInput
from tasks.files.read.reading import Reading
from tasks.files.write import ExportFormat
from tasks.prompt_schema import MAX_MANY, MAX_NAME, Check, Messages, Name, PromptBody, Text
from tasks.run_schema import MAX_SAMPLES, Deadline, Samples
from tasks.sampling import SamplingSettings
from tasks.schema import Characters, Flag, Many, Said, Schema, TextOr, one_of, validated, whole
from tasks.states import RunKind, RunState
from web.schema.values import FromText

MAX_PAGE = 1000
MAX_RUNS = 200
MAX_FILE_NAME = 255
MAX_LENGTHS = 1000

SetTitle = Annotated[str, Characters(200, 1)]

Names = Annotated[
    list[Annotated[str, Characters(MAX_NAME)]],
    Many("names", 1000),
    Said("must be a list of names; GET /api/models shows them"),
]


class SentPrompts(Schema):
    """Prompts: a list of them, one conversation as `messages`, or a file that was uploaded before."""

    prompts: Annotated[list[Annotated[PromptBody, TextOr("prompt")]], Many("prompts", MAX_PROMPTS, 1)] | None = Field(
        default=None, description="Give this, `messages` or `upload`"
    )
    messages: Messages | None = None
    upload: Annotated[str, Characters(40, 1)] | None = Field(default=None, description="Id of an uploaded file")
    reading: Reading | None = Field(default=None, description="How that file is read, where the guess is wrong")
    system: Text | None = Field(default=None, description="The system message of every prompt that has none")

    def new_prompts(self) -> Iterator[NewPrompt]:
        """Those that the request itself holds, in order. Raises `InvalidInput` for the first that cannot be taken."""
        if self.messages is not None:
            yield PromptBody(messages=self.messages, system=self.system).to_prompt("")
        for index, prompt in enumerate(self.prompts or ()):
            if isinstance(prompt, str):
                yield NewPrompt(prompt, self.system)
            else:
                yield prompt.to_prompt(f"prompts.{index}", self.system)

    @model_validator(mode="after")
    def _says_once(self) -> Self:
        """Raises `InvalidInput`."""
        self._check_source()
        return self

    def _check_source(self) -> None:
        if sum(given is not None for given in (self.prompts, self.messages, self.upload)) != 1:
            raise InvalidInput(
                "Send prompts, a list, or messages, which are one conversation, or upload, a file's id.", "prompts"
            )
        if self.reading is not None and self.upload is None:
            raise InvalidInput("reading says how an uploaded file is read; give upload, too.", "reading")


class NewRun(SentPrompts):
    """A run: prompts for models."""

    models: Names | None = Field(default=None, description="Names of models; all of them where none is given")
    sampling: SamplingSettings = SamplingSettings()
    samples: Samples = Field(default=1, description="Answers of each model to each prompt")
    kind: Annotated[RunKind, one_of(*RunKind)] | None = Field(
        default=None,
        description="Arena runs go first; by default a run of few prompts is one, unless they come from a file",
    )
    deadline: Deadline | None = Field(default=None, description="Seconds that one completion may take")
    title: Annotated[str, Characters(200)] = ""
    fresh: Flag = Field(default=False, description="Compute every answer, though the same was asked before")
    set_name: SetTitle | None = Field(default=None, description="Names the set of these prompts, if it has no name yet")


class EstimateRequest(Schema):
    """A run that might be submitted, as the preview of its file tells of it."""

    prompts: Annotated[int, whole(1, MAX_PROMPTS)]
    lengths: Annotated[dict[int, int], Many("numbers by characters", MAX_LENGTHS)] = Field(
        default_factory=dict, description="Numbers of prompts by their characters"
    )
    models: Names | None = Field(default=None, description="Names of models; all of them where none is given")
    sampling: SamplingSettings = SamplingSettings()
    samples: Samples = 1


class FollowUp(PromptBody):
    """A later turn of a conversation of this run."""

    follows: Annotated[int, whole(0, MAX_PROMPTS - 1)] = Field(
        description="Index (from 0) of the prompt whose conversation this one continues"
    )


class MorePrompts(SentPrompts):
    """Prompts that are added to a run: those of a list or a file, or one that `follows` a turn of it."""

    prompt: Text | None = Field(default=None, description="With `follows`: the user's next message")
    follows: Annotated[int, whole(0, MAX_PROMPTS - 1)] | None = Field(
        default=None, description="Index (from 0) of the prompt of the run whose conversation goes on"
    )
    category: Name | None = None
    reference: Text | None = None
    checks: Annotated[list[Check], Many("checks", MAX_MANY)] = Field(default_factory=list)
    tags: Annotated[list[Name], Many("tags", MAX_MANY)] = Field(default_factory=list)
    variables: Annotated[dict[Name, Text], Many("texts by name", MAX_MANY)] | None = None
    custom_id: Annotated[str, Characters(512, 1)] | None = None
    sampling: SamplingSettings | None = None

    @property
    def later_turn(self) -> NewPrompt | None:
        """The turn that follows another one, where it is that. Raises `InvalidInput`."""
        if self.follows is None:
            return None
        given = self.model_dump(exclude={"prompts", "upload", "reading"}, exclude_defaults=True)
        return validated(FollowUp, given).to_prompt("")

    def _check_source(self) -> None:
        if self.prompt is not None and self.follows is None:
            problem = "follows is missing: it says which prompt of the run goes on; send prompts for new ones."
            raise InvalidInput(problem, "follows")
        if self.follows is None:
            super()._check_source()


class MoreModels(Schema):
    """Models that are added to a run."""

    models: Names


class MoreSamples(Schema):
    """Answers that every model is to give to each prompt beside those that it gave."""

    samples: Samples


class MadeElsewhere(Schema):
    """A file with answers that were made elsewhere."""

    upload: Annotated[str, Characters(40, 1)] = Field(description="Id of an uploaded file")
    label: Annotated[str, Characters(50, 1)] | None = Field(
        default=None, description="Whose answers they are, where the file does not say"
    )


class OtherRun(Schema):
    """A run whose columns are copied."""

    run: Annotated[str, Characters(32, 1)]


class SetName(Schema):
    """A name for a set of prompts."""

    name: SetTitle


class Nothing(Schema):
    """An empty object: what acts on a run needs to be told nothing more."""


class UploadQuery(Schema):
    """Beside a file that is the body."""

    name: Annotated[str, Characters(MAX_FILE_NAME, 1)] = "file"


class RunsQuery(Schema):
    """Which runs."""

    search: Annotated[str, Characters(200)] | None = Field(default=None, description="A part of title, id or set name")
    state: Annotated[RunState, one_of(*RunState)] | None = None
    kind: Annotated[RunKind, one_of(*RunKind)] | None = None
    set: Annotated[str, Characters(64)] | None = Field(default=None, description="Digest of its set of prompts")
    model: Annotated[str, Characters(MAX_NAME)] | None = None
    after: Annotated[str, Characters(100)] | None = Field(default=None, description="What the page before gave")
    limit: Annotated[int, whole(1, MAX_RUNS), FromText] = 50


class PromptsQuery(Schema):
    """Which prompts of a run."""

    after: Annotated[int, whole(-1, MAX_PROMPTS), FromText] = Field(
        default=-1, description="What the page before gave as `next`"
    )
    limit: Annotated[int, whole(1, MAX_PAGE), FromText] = 100


class ExportQuery(Schema):
    """As which file."""

    format: Annotated[ExportFormat, one_of(*ExportFormat)] = ExportFormat.JSONL
    models: Names | None = Field(default=None, description="All of them where none is given")


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
