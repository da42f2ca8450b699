"""Answers about files that were handed in."""

from typing import Any

from pydantic import Field

from web.schema.answers.base import Answer, Problem
from web.schema.answers.results import LineProblem, Prompt


class Preview(Answer):
    """What a file holds as it would be read."""

    reading: dict[str, Any] = Field(description="How it is read, guesses filled in; send it back changed")
    guessed: list[str] = Field(description="What of it is a guess")
    columns: list[str]
    first: list[Prompt]
    prompts: int = Field(description="How many can be taken")
    problem_count: int
    problems: list[LineProblem] = Field(description="The first of them")
    notes: list[str]
    lengths: dict[str, int] = Field(description="Numbers of prompts by their characters")


class Upload(Answer):
    """A file that was handed in."""

    id: str
    name: str
    bytes: int
    preview: Preview | None
    problem: Problem | None = Field(description="Why there is no preview; `reading` may say how it is to be read")
