"""The two files that come of a batch, made from the ledger as they are read: answers, and lines that failed."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from tasks.ledger import Ledger
from tasks.ledger.records import Completion, Run
from tasks.openai.bodies import Endpoint
from tasks.openai.objects import answer_object, problem_of_answer

PROMPTS = 1000  # whose ids are read at once


def output_lines(ledger: Ledger, runs: Sequence[Run], endpoint: Endpoint) -> Iterator[bytes]:
    """A line for each request and model whose every sample was answered."""
    for custom_id, rows in _answers(ledger, runs):
        if problem_of_answer(rows) is None:
            yield _json_line(result(endpoint, custom_id, rows))


def error_lines(ledger: Ledger, runs: Sequence[Run], endpoint: Endpoint) -> Iterator[bytes]:
    """A line for each request and model of which a sample failed, was cancelled, or ran out of time."""
    for custom_id, rows in _answers(ledger, runs):
        if problem_of_answer(rows) is not None:
            yield _json_line(result(endpoint, custom_id, rows))


def result(endpoint: Endpoint, custom_id: str, rows: Sequence[Completion]) -> dict[str, Any]:
    """One line: ``rows`` are samples of one model's answer to one request."""
    first = rows[0]
    answer_id = f"{first.run}-{first.idx}-{first.model}" + (f"-{first.sample}" if first.sample else "")
    line: dict[str, Any] = {"id": f"batch_req_{answer_id}", "custom_id": custom_id, "response": None, "error": None}
    if problem := problem_of_answer(rows):
        return line | {"error": {"code": problem[0], "message": f"{first.model}: {problem[1]}"}}
    body = answer_object(endpoint, answer_id, rows)
    return line | {"response": {"status_code": 200, "request_id": answer_id, "body": body}}


def _answers(ledger: Ledger, runs: Sequence[Run]) -> Iterator[tuple[str, list[Completion]]]:
    """For each request and model its custom_id and all samples, those that have ended."""
    for run in runs:
        computed, ids, read = set(run.computed), {}, 0
        rows = (row for row in ledger.completions.every(run.id) if row.model in computed)
        for (idx, _), group in groupby(rows, key=lambda row: (row.idx, row.model)):
            if idx >= read:
                read = idx - idx % PROMPTS + PROMPTS
                ids = ledger.batches.custom_ids(run.id, read - PROMPTS, PROMPTS)
            samples = list(group)
            if len(samples) == run.samples:
                yield ids[idx], samples


def _json_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
