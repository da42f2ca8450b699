"""How a file of prompts is read: what a person said of it, the rest being guessed from its content."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tasks.conversation import NewPrompt
from tasks.prompt_schema import MAX_NAME, Text
from tasks.schema import Characters, Flag, Many, Schema, one_of


class FileFormat(StrEnum):
    """A format that prompts are read from."""

    LINES = "lines"  # text, a prompt a line
    BLOCKS = "blocks"  # text, prompts between lines of ---
    CSV = "csv"  # with any separator
    XLSX = "xlsx"
    JSONL = "jsonl"
    JSON = "json"
    PROMPTFOO = "promptfoo"  # its tests, as YAML, JSON or a table
    PARQUET = "parquet"


class Encoding(StrEnum):
    """How the bytes of a text file are characters."""

    UTF_8 = "utf-8"
    UTF_16 = "utf-16"
    GB18030 = "gb18030"


class Separator(StrEnum):
    COMMA = ","
    SEMICOLON = ";"
    TAB = "\t"


class Column(StrEnum):
    """What of a prompt a column may hold; every other column is a variable of its name."""

    PROMPT = "prompt"
    SYSTEM = "system"
    CATEGORY = "category"
    REFERENCE = "reference"
    CUSTOM_ID = "custom_id"
    TAGS = "tags"


ColumnName = Annotated[str, Characters(MAX_NAME)]


class Reading(Schema):
    """How a file is read. What is left out is guessed from its content."""

    format: Annotated[FileFormat, one_of(*FileFormat)] | None = None
    encoding: Annotated[Encoding, one_of(*Encoding)] | None = None
    separator: Annotated[Separator, one_of(*Separator)] | None = None
    columns: (
        Annotated[dict[Annotated[Column, one_of(*Column)], ColumnName], Many("columns by what they hold", 20)] | None
    ) = Field(
        default=None, description="Names of the columns that hold prompt, system, category, …; empty where none does"
    )
    template: Text | None = Field(default=None, description="A prompt with `{{name}}` for the value of a column")
    system: Text | None = Field(default=None, description="The system message of every prompt that has none")
    category: Annotated[str, Characters(100, 1)] | None = Field(
        default=None, description="The category of every prompt that has none"
    )
    leave_out: Flag = Field(default=False, description="Leave lines with problems out instead of refusing the file")


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line (from 1) of a file, and what to do about it; both are whole sentences.

    A ``final`` problem is one of all that comes after the line, too: it cannot be left out.
    """

    line: int
    reason: str
    remedy: str
    final: bool = False


@dataclass(frozen=True)
class Preview:
    """What a file holds as it would be read, the whole of it looked at.

    ``reading`` has every guess filled in; ``guessed`` names those that are guesses. ``columns`` are the names of the
    columns or keys of a table or of records. ``first`` are its first prompts. ``prompts`` counts those that can be
    taken, ``problem_count`` the lines that cannot, of which ``problems`` has the first. ``notes`` say what is left
    aside, such as settings that are not taken over. ``lengths`` are the numbers of prompts by their characters,
    rounded up to two digits.
    """

    reading: Reading
    guessed: tuple[str, ...]
    columns: tuple[str, ...]
    first: tuple[NewPrompt, ...]
    prompts: int
    problem_count: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    lengths: Mapping[int, int] = field(default_factory=dict)
