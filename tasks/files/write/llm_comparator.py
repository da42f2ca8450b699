"""LLM Comparator's JSON: two models side by side, an example a prompt and sample."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from tasks.conversation import Message
from tasks.files.write.fields import phase_fields
from tasks.files.write.source import Source
from tasks.ledger.records import Completion
from tasks.ledger.results import Result, Scores
from tasks.states import Outcome

PER_PROMPT = {"custom_id": "string", "sample": "number", "reference": "text"}
PER_MODEL = {
    "finish_reason": "per_model_category",
    "origin": "per_model_category",
    "error": "per_model_text",
    "thinking": "per_model_text",
    "output_tokens": "per_model_number",
    "service_seconds": "per_model_number",
}


def write_llm_comparator(source: Source) -> Iterator[bytes]:
    """``score`` is null: who is better is for people and judges to say. The run stands in the metadata."""
    metrics = source.metrics()
    types = PER_PROMPT | PER_MODEL | dict.fromkeys(metrics, "per_model_number")
    metadata = {
        "source_path": f"Touchstone run {source.run.id}",
        "custom_fields_schema": [{"name": name, "type": kind} for name, kind in types.items()],
        "touchstone": source.header(),
    }
    models = [{"name": name} for name in source.models]
    yield b'{"metadata":%b,"models":%b,"examples":[' % (orjson.dumps(metadata), orjson.dumps(models))
    before = b""
    for page in source.pages():
        examples = [orjson.dumps(each) for result in page for each in _examples(result, source.models, metrics)]
        if examples:
            yield before + b",\n".join(examples)
            before = b",\n"
    yield b"]}\n"


def _examples(result: Result, models: Sequence[str], metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One for each sample that both models have answered; a failed answer is an empty text with its error."""
    by_place = {
        (row.model, row.sample): (row, scores)
        for row, scores in zip(result.completions, result.scores, strict=True)
        if row.finish_reason.outcome is not Outcome.CANCELLED
    }
    prompt = result.prompt
    for sample in sorted({sample for _, sample in by_place}):
        pair = [by_place[model, sample] for model in models if (model, sample) in by_place]
        if len(pair) == len(models):
            yield {
                "input_text": _input(result.messages(models[0], sample)),
                "tags": [*([prompt.category] if prompt.category else []), *prompt.tags],
                "output_text_a": pair[0][0].text,
                "output_text_b": pair[1][0].text,
                "score": None,
                "individual_rater_scores": [],
                "custom_fields": {
                    "custom_id": prompt.custom_id or "",
                    "sample": sample,
                    "reference": prompt.reference or "",
                }
                | _both([_about(row, scores, metrics) for row, scores in pair]),
            }


def _input(messages: Sequence[Message]) -> str:
    """A single message as it is, a conversation with the role before each message."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in messages)


def _about(row: Completion, scores: Scores, metrics: Sequence[str]) -> dict[str, Any]:
    about = {
        "finish_reason": row.finish_reason,
        "origin": row.origin,
        "error": row.error or "",
        "thinking": row.thinking or "",
        "output_tokens": row.output_tokens,
        "service_seconds": phase_fields(row)["service_seconds"],
    }
    return about | {metric: scores.get(metric) for metric in metrics}


def _both(about: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [each[name] for each in about] for name in about[0]}
