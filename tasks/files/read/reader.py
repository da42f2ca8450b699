"""The one way from a file to prompts: what it is, its records, what they say, and what is wrong with each line."""

import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import IO

from tasks.conversation import MAX_PROMPTS, NewPrompt, PromptCheck
from tasks.errors import InvalidInput
from tasks.files.read.csv import read_csv
from tasks.files.read.json import read_json
from tasks.files.read.jsonl import read_jsonl
from tasks.files.read.opening import opened
from tasks.files.read.parquet import read_parquet
from tasks.files.read.plan import SAME_COLUMNS
from tasks.files.read.promptfoo import read_promptfoo
from tasks.files.read.reading import FileFormat, Preview, Problem, Reading
from tasks.files.read.record import NoColumn, Notes, Records, Said, Unfit
from tasks.files.read.shapes import Shapes
from tasks.files.read.source import Source
from tasks.files.read.text import read_blocks, read_lines
from tasks.files.read.xlsx import read_xlsx

FORMATS: Mapping[FileFormat, Callable[[Source, Notes], Records]] = {
    FileFormat.LINES: read_lines,
    FileFormat.BLOCKS: read_blocks,
    FileFormat.CSV: read_csv,
    FileFormat.XLSX: read_xlsx,
    FileFormat.JSONL: read_jsonl,
    FileFormat.JSON: read_json,
    FileFormat.PARQUET: read_parquet,
    FileFormat.PROMPTFOO: lambda source, notes: read_promptfoo(source.stream, source.name, source.reading),
}
FIRST_PROMPTS = 5
LISTED_PROBLEMS = 1000


def read(stream: IO[bytes], name: str, reading: Reading | None = None) -> Iterator[NewPrompt]:
    """The prompts of a file called ``name``, in constant memory.

    Raises `InvalidInput` with the number of the first line that gives no prompt. A reading that leaves bad lines out
    does so only for problems that are not final, and where a prompt is left.
    """
    with opened(stream, name, reading or Reading()) as source:
        found, last = False, None
        for prompt in _prompts(source, Shapes(source.reading, Notes())):
            if isinstance(prompt, NewPrompt):
                found = True
                yield prompt
                continue
            last = prompt
            if prompt.final or not source.reading.leave_out:
                raise InvalidInput(f"{name}, line {prompt.line}: {prompt.reason} {prompt.remedy}", "file")
        if not found:
            raise _without_prompts(source, last)


def preview(stream: IO[bytes], name: str, reading: Reading | None = None) -> Preview:
    """What a file called ``name`` holds as it would be read; all of it is looked at.

    Raises `InvalidInput` where it cannot be read at all: it is empty, of an unknown kind, or no text.
    """
    with opened(stream, name, reading or Reading()) as source:
        notes = Notes()
        shapes = Shapes(source.reading, notes)
        first: list[NewPrompt] = []
        problems: list[Problem] = []
        problem_count = 0
        lengths: Counter[int] = Counter()
        for prompt in _prompts(source, shapes):
            if isinstance(prompt, Problem):
                problem_count += 1
                problems += [prompt] if problem_count <= LISTED_PROBLEMS else []
                continue
            lengths[_length(prompt) if prompt.history or prompt.system else len(prompt.text)] += 1
            if len(first) < FIRST_PROMPTS:
                first.append(prompt)
        if not problem_count and not first:
            raise _without_prompts(source, None)
        unused = {column: "" for column, name in (source.reading.columns or {}).items() if not name}
        columns = {**unused, **shapes.columns}
        return Preview(
            reading=source.reading.model_copy(update={"columns": columns or None}),
            guessed=(*source.guessed, *(["columns"] if columns != (source.reading.columns or {}) else [])),
            columns=tuple(shapes.keys),
            first=tuple(first),
            prompts=lengths.total(),
            problem_count=problem_count,
            problems=tuple(problems),
            notes=tuple(notes),
            lengths=_rounded(lengths),
        )


def _prompts(source: Source, shapes: Shapes) -> Iterator[NewPrompt | Problem]:
    """Prompts and problems in the order of the file; ``follows`` counts prompts that are not left out."""
    check = PromptCheck()
    left_out: list[int] = []  # which prompts gave a problem, counted from 0 with those that did not
    assert source.reading.format is not None
    for line, record in FORMATS[source.reading.format](source, shapes.notes):
        made = _made(line, record, shapes, check, left_out)
        if isinstance(made, Problem):
            left_out.append(check.passed + len(left_out))
            yield made
            if made.final:
                return
            continue
        if check.passed > MAX_PROMPTS:
            yield Problem(line, f"There are over {MAX_PROMPTS} prompts, the limit of a run.", "Split the file.", True)
            return
        yield from made


def _made(
    line: int, record: Said | Problem, shapes: Shapes, check: PromptCheck, left_out: list[int]
) -> tuple[NewPrompt, ...] | Problem:
    """The prompts of a record, of which `check` has seen all, or what is wrong with it."""
    if isinstance(record, Problem):
        return record
    try:
        made = shapes.prompts(record, check.passed + len(left_out))
        if left_out:
            made = tuple(_moved(prompt, left_out) for prompt in made)
    except NoColumn as unfit:
        return Problem(line, unfit.reason, unfit.remedy, final=shapes.reading.format in SAME_COLUMNS)
    except Unfit as unfit:
        return Problem(line, unfit.reason, unfit.remedy)
    if found := check.problem(made[0]) if len(made) == 1 else check.problem_of_turns(made):
        said = Unfit.of_message(f"The prompt {found[0]}")
        return Problem(line, said.reason, said.remedy)
    return made


def _moved(prompt: NewPrompt, left_out: list[int]) -> NewPrompt:
    """The same prompt, following by the number that the other has without those left out. Raises `Unfit`."""
    if prompt.follows is None:
        return prompt
    before = bisect.bisect_left(left_out, prompt.follows)
    if before < len(left_out) and left_out[before] == prompt.follows:
        raise Unfit("The prompt follows one that is left out.", "Correct that one first.")
    return replace(prompt, follows=prompt.follows - before)


def _without_prompts(source: Source, last: Problem | None) -> InvalidInput:
    advice = "write one a line"
    if source.reading.format in SAME_COLUMNS:
        advice = "it has a header at most, and no record below"
    if last is not None:
        advice = f"each line has a problem, the last (line {last.line}): {last.reason} {last.remedy}".rstrip(".")
    return InvalidInput(f"{source.name} holds no prompt; {advice}.", "file")


def _length(prompt: NewPrompt) -> int:
    before = sum(len(message.content) for message in prompt.history) if prompt.history else 0
    return len(prompt.text) + len(prompt.system or "") + before


def _rounded(lengths: Mapping[int, int]) -> dict[int, int]:
    """Lengths rounded up to two digits, in order."""
    rounded: Counter[int] = Counter()
    for length, count in lengths.items():
        unit = 10 ** max(0, len(str(length)) - 2)
        rounded[-(-length // unit) * unit] += count
    return dict(sorted(rounded.items()))
