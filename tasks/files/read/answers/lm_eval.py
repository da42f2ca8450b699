"""Samples of the LM Evaluation Harness: ``samples_*.jsonl``, a line a document of a task."""

import json
from collections.abc import Iterator
from typing import Any

from tasks.files.read.answers.content import asked, id_of, object_of
from tasks.files.read.answers.formats import Record, RecordFormat
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer

GENERATE = "Take over tasks that generate text; those that compare likelihoods have no answer to show."


def _fits(record: Record) -> bool:
    return "resps" in record and ("doc" in record or "doc_id" in record)


def _answers(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
    """Each response to the first request is a sample. The document's id joins only where the request is not there."""
    prompt = _prompt(record.get("arguments"))
    custom_id = id_of(record.get("doc_id")) if prompt is None else None
    texts = [response for response in _responses(record["resps"]) if isinstance(response, str)]
    if not texts:
        problems.add(line, "The sample has no response that is a text.", GENERATE)
    for sample, text in enumerate(texts):
        yield NewAnswer(text, custom_id, prompt, sample=sample, line=line)


def _responses(resps: Any) -> list[Any]:
    first = resps[0] if isinstance(resps, list) and resps else None
    return first if isinstance(first, list) else [first]


def _prompt(arguments: Any) -> str | None:
    """The text of the first request; of one that is a conversation in JSON, what its user said last."""
    if isinstance(arguments, list):
        first = arguments[0] if arguments else None
        text = first[0] if isinstance(first, list) and first else first
    else:
        text = object_of(object_of(arguments).get("gen_args_0")).get("arg_0")
    if isinstance(text, str) and text.startswith("[{"):
        try:
            return asked(json.loads(text)) or text
        except (ValueError, RecursionError):
            return text
    return asked(text)


LM_EVAL = RecordFormat("samples of lm-eval", _fits, _answers)
