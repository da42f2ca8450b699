"""Answers as FastChat's MT-bench judges them: a line a question, with the answers along its turns."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from tasks.files.write.jsonl import line
from tasks.files.write.source import Source
from tasks.ledger.results import Result

NUMBER = re.compile(r"0|[1-9][0-9]{0,14}")


def write_mt_bench(source: Source) -> Iterator[bytes]:
    """Answers of one model. A question is a whole conversation, a choice one sample of it.

    Where two turns follow the same one, each makes a question of its own. An answer that failed is "ERROR", as
    FastChat writes it; samples whose last turn is not done are left out.
    """
    (model,) = source.models
    followed = source.ledger.results.followed(source.run.id, source.run.prompts)
    for page in source.pages():
        ends = (result for result in page if result.prompt.idx < len(followed) and not followed[result.prompt.idx])
        yield b"".join(line(_question(source, result, model)) for result in ends if result.completions)


def _question(source: Source, result: Result, model: str) -> dict[str, Any]:
    turns = [*result.earlier, result]
    first = turns[0].prompt
    return {
        "question_id": first.idx if first.custom_id is None else _number_or_text(first.custom_id),
        "answer_id": hashlib.sha256(f"{source.run.id}/{model}/{result.prompt.idx}".encode()).hexdigest()[:22],
        "model_id": model,
        "choices": [
            {"index": row.sample, "turns": [_said(turn, model, row.sample) for turn in turns]}
            for row in result.completions
        ],
        "tstamp": max(row.written for row in result.completions),
    }


def _number_or_text(custom_id: str) -> int | str:
    """MT-bench's own ids are numbers."""
    return int(custom_id) if NUMBER.fullmatch(custom_id) else custom_id


def _said(turn: Result, model: str, sample: int) -> str:
    answered = turn.answer(model, sample)
    return "ERROR" if answered is None or answered.error else answered.text
