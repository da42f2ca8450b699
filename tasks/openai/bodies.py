"""What the bodies of chat completions and completions ask, as prompts and decoding settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from tasks.conversation import MAX_MESSAGES, Message, NewPrompt, Role, problem_of, split
from tasks.errors import InvalidInput
from tasks.openai.parameters import effective
from tasks.prompt_schema import Text
from tasks.run_schema import Samples
from tasks.sampling import BOUNDS, STOPS, SamplingSettings, StopString, check_settings, stops
from tasks.schema import Characters, Flag, Many, Schema, one_of

MAX_PROMPTS = 64  # of one request
ROLES = ("system", "developer", "user", "assistant")

MaxTokens = Annotated[int, BOUNDS["max_new_tokens"]] | None


class Endpoint(StrEnum):
    """Where a body may be sent, alone or as a line of a batch."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"


def _role(value: Any) -> Any:
    return Role.SYSTEM if value == "developer" else value


def _content(value: Any) -> Any:
    """The text of a message; a list of text parts is joined."""
    if not isinstance(value, list):
        return value
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            wanted = 'has a part that is no text; the models read parts such as {"type": "text", "text": "…"}'
            raise PydanticCustomError("part", wanted)
    return "".join(part["text"] for part in value)


class StreamOptions(Schema):
    """``include_obfuscation`` is known and has no effect."""

    include_usage: Flag = False
    include_obfuscation: Flag = False


class ChatMessage(Schema):
    """One message; what an earlier answer carries beside its text may come back with it."""

    role: Annotated[Role, BeforeValidator(_role), one_of(*ROLES)]
    content: Annotated[Text, BeforeValidator(_content)]
    name: Text | None = None
    refusal: Text | None = None
    reasoning_content: Text | None = None
    annotations: Annotated[list[Any], Many("annotations", 0)] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if value is not None or name in ("role", "content")}


@dataclass(frozen=True)
class Asked:
    """What a body asks: ``samples`` answers of ``model`` to each of ``prompts``, with these decoding settings."""

    endpoint: Endpoint
    model: str
    prompts: tuple[NewPrompt, ...]
    samples: int
    sampling: Mapping[str, Any]
    stream: bool
    include_usage: bool


class Body(Schema):
    """What both endpoints take; ``top_k`` and ``repetition_penalty`` are ours."""

    model: Annotated[str, Characters(100, 1)]
    n: Samples = 1
    max_tokens: MaxTokens = None
    temperature: Annotated[float, BOUNDS["temperature"]] | None = None
    top_p: Annotated[float, BOUNDS["top_p"]] | None = None
    top_k: Annotated[int, BOUNDS["top_k"]] | None = None
    repetition_penalty: Annotated[float, BOUNDS["repetition_penalty"]] | None = None
    seed: Annotated[int, BOUNDS["seed"]] | None = None
    stop: Annotated[tuple[StopString, ...], BeforeValidator(stops), STOPS] | None = None
    stream: Flag = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _effective(cls, given: Any) -> Any:
        return effective(given)

    @property
    def tokens(self) -> int | None:
        """How many tokens an answer may have."""
        return self.max_tokens

    def sampling(self) -> dict[str, Any]:
        """The decoding settings as a run takes them."""
        alike = self.model_dump(exclude_none=True, include=set(SamplingSettings.model_fields))
        return check_settings(alike | ({"max_new_tokens": self.tokens} if self.tokens else {}))

    def _asked(self, endpoint: Endpoint, prompts: tuple[NewPrompt, ...], field: str) -> Asked:
        """Raises `InvalidInput` for a prompt that cannot be stored, and for options that contradict each other."""
        if self.stream_options and not self.stream:
            raise InvalidInput("stream_options needs stream: true.", "stream_options")
        for prompt in prompts:
            if not prompt.text.strip():
                raise InvalidInput(f"{field} is empty; write something.", field)
            if problem := problem_of(prompt):
                raise InvalidInput(f"{field} {problem}", field)
        usage = bool(self.stream_options and self.stream_options.include_usage)
        return Asked(endpoint, self.model, prompts, self.n, self.sampling(), self.stream, usage)


class ChatBody(Body):
    """A body of ``/v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Many("messages, the last of the user", MAX_MESSAGES, 1)]
    max_completion_tokens: MaxTokens = None

    @property
    def tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def asked(self) -> Asked:
        """Raises `InvalidInput`."""
        system, history, text = split(Message(message.role, message.content) for message in self.messages)
        return self._asked(Endpoint.CHAT, (NewPrompt(text, system, history),), "messages")


def _texts(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(one, int | list) for one in value):
        raise PydanticCustomError("tokens", "is a list of token ids; send the text, which the model's tokenizer reads")
    return [value] if isinstance(value, str) else value


class CompletionBody(Body):
    """A body of ``/v1/completions``; each prompt is the message of a user."""

    prompt: Annotated[list[Text], Many("texts, or one text", MAX_PROMPTS, 1), BeforeValidator(_texts)]

    def asked(self) -> Asked:
        """Raises `InvalidInput`."""
        return self._asked(Endpoint.COMPLETIONS, tuple(map(NewPrompt, self.prompt)), "prompt")


BODIES: dict[Endpoint, type[ChatBody] | type[CompletionBody]] = {
    Endpoint.CHAT: ChatBody,
    Endpoint.COMPLETIONS: CompletionBody,
}
