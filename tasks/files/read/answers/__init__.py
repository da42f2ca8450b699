"""Answers made elsewhere, read from what other programs write: which format a file has shows in its content."""

from collections.abc import Iterator
from itertools import chain
from typing import IO

from tasks.errors import InvalidInput
from tasks.files.read.answers.alpaca_eval import ALPACA_EVAL
from tasks.files.read.answers.arena_hard import ARENA_HARD
from tasks.files.read.answers.columns import by_columns
from tasks.files.read.answers.csv_records import csv_records
from tasks.files.read.answers.evalscope import PREDICTIONS, REVIEWS
from tasks.files.read.answers.fastchat import FASTCHAT
from tasks.files.read.answers.formats import Record
from tasks.files.read.answers.inspect_logs import INSPECT, read_inspect_archive
from tasks.files.read.answers.json_records import json_records
from tasks.files.read.answers.lighteval import LIGHTEVAL
from tasks.files.read.answers.lm_eval import LM_EVAL
from tasks.files.read.answers.openai_batch import OPENAI_BATCH
from tasks.files.read.answers.parquet_records import parquet_records
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer
from tasks.schema import LONE_SURROGATE

LOOK_BYTES = 4096
ZIP = b"PK\x03\x04"
PARQUET = b"PAR1"
BOM = b"\xef\xbb\xbf"
FORMATS = (INSPECT, LM_EVAL, LIGHTEVAL, PREDICTIONS, REVIEWS, OPENAI_BATCH, FASTCHAT, ARENA_HARD, ALPACA_EVAL)

__all__ = ["Problems", "read_answers"]


def read_answers(stream: IO[bytes], name: str, problems: Problems | None = None) -> Iterator[NewAnswer]:
    """The answers in a file called ``name``, as they stand in it; ``stream`` is seekable.

    What says that it failed, or has no text, is no answer: ``problems`` is told of it. Raises `InvalidInput` with the
    line for what cannot be read, and for a file without any answer.
    """
    left_out = Problems() if problems is None else problems
    found = False
    for answer in _answers(stream, name, left_out):
        if problem := _unstorable(answer):
            raise InvalidInput(f"{name}, line {answer.line}: the answer {problem}.", "file")
        found = True
        yield answer
    if not found:
        why = f" Line {left_out.first[0].line}: {left_out.first[0].reason}" if left_out.first else ""
        raise InvalidInput(f"{name} holds no answer.{why} Hand in a file with answers of a model.", "file")


def _answers(stream: IO[bytes], name: str, problems: Problems) -> Iterator[NewAnswer]:
    stream.seek(0)
    beginning = stream.read(LOOK_BYTES)
    stream.seek(0)
    if beginning.startswith(ZIP):
        yield from read_inspect_archive(stream, name, problems)
        return
    records = _records(stream, name, beginning)
    first = next(records, None)
    if first is None:
        return
    form = next((one for one in FORMATS if one.fits(first[1])), None) or by_columns(first[1], name)
    for line, record in chain([first], records):
        if form.fits(record):
            yield from form.answers(record, line, problems)
        else:
            problems.add(line, f"This is no record of {form.name}, as the first is.", "Hand it in with its like.")


def _records(stream: IO[bytes], name: str, beginning: bytes) -> Iterator[tuple[int, Record]]:
    if beginning.startswith(PARQUET):
        return parquet_records(stream, name)
    if beginning.removeprefix(BOM).lstrip().startswith((b"{", b"[")):
        return json_records(stream, name)
    return csv_records(stream, name)


def _unstorable(answer: NewAnswer) -> str | None:
    """What keeps an answer from being stored, as the end of a sentence."""
    texts = (answer.text, answer.custom_id or "", answer.prompt or "", answer.model or "")
    if any("\x00" in text for text in texts):
        return "contains a NUL character; remove it"
    if any(LONE_SURROGATE.search(text) for text in texts):
        return "has half a surrogate pair, which is no character; write the file as UTF-8"
    return None
