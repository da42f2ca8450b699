"""What all answers have in common. Points of time are seconds since 1970, durations are seconds."""

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """A part of an answer: every field that is documented is there, and no other."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Texts(Answer):
    """A text in both languages."""

    zh: str
    en: str


class Health(Answer):
    """How the server is."""

    status: str


class Problem(Answer):
    """What is wrong, and what to do next."""

    code: str
    message: str
    field: str | None = Field(description="Path of the field that is wrong, such as `prompts.3.messages.0.role`")


class Error(Answer):
    """Every answer with a status of 400 or more."""

    error: Problem
