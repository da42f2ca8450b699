"""A log of Inspect (inspect_ai) in JSON: one model's answers, an epoch a sample."""

from collections.abc import Iterator
from typing import Any

import orjson

from tasks.files.write.fields import completion_fields
from tasks.files.write.naming import iso
from tasks.files.write.source import Source
from tasks.ledger.records import Completion
from tasks.ledger.results import Result, Scores
from tasks.states import FinishReason

VERSION = 2
STOP_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.STOP_STRING: "stop",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.CONTEXT: "model_length",
}
SETTINGS = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop_seqs",
}
BACKENDS = {"local": "touchstone", "openai": "openai"}


def write_inspect(source: Source) -> Iterator[bytes]:
    """Header and sums first, as Inspect's own logs have them, then the samples."""
    (model,) = source.models
    head = {
        "version": VERSION,
        "status": _status(source, model),
        "eval": _spec(source, model),
        "plan": {"name": "plan", "steps": [{"solver": "generate"}]},
        "results": _results(source, model),
        "stats": _stats(source, model),
    }
    yield orjson.dumps(head)[:-1] + b',"samples":['
    before = b""
    for page in source.pages():
        samples = [
            orjson.dumps(_sample(result, row, scores))
            for result in page
            for row, scores in zip(result.completions, result.scores, strict=True)
        ]
        if samples:
            yield before + b",\n".join(samples)
            before = b",\n"
    yield b"]}\n"


def _status(source: Source, model: str) -> str:
    counts = source.run.models[model]
    if counts.pending:
        return "started"
    return "cancelled" if counts.cancelled else "success"


def _spec(source: Source, model: str) -> dict[str, Any]:
    run, entry, settings = source.run, source.run.entries.get(model), source.settings(model)
    config = {theirs: settings[ours] for ours, theirs in SETTINGS.items() if settings.get(ours) not in (None, [])}
    return {
        "eval_id": f"{run.id}/{model}",
        "run_id": run.id,
        "task_id": run.id,
        "created": iso(run.created),
        "task": run.title or run.id,
        "dataset": {"name": run.set_name or run.prompt_set, "samples": run.prompts},
        "model": f"{BACKENDS[entry.backend]}/{model}" if entry else model,
        "model_generate_config": config,
        "config": {"epochs": run.samples},
        "packages": {"touchstone": source.header()["touchstone"]},
        "metadata": source.header(),
    }


def _sample(result: Result, row: Completion, scores: Scores) -> dict[str, Any]:
    prompt = result.prompt
    messages = [message.to_dict() for message in result.messages(row.model, row.sample)]
    said = {"role": "assistant", "content": _content(row), "model": row.model, "source": "generate"}
    sample = {
        "id": prompt.custom_id or prompt.idx + 1,
        "epoch": row.sample + 1,
        "input": messages,
        "target": prompt.reference or "",
        "messages": [*messages, said],
        "output": {
            "model": row.model,
            "choices": [{"message": said, "stop_reason": STOP_REASONS.get(row.finish_reason, "unknown")}],
            "usage": _usage(row) or None,
            "error": row.error,
        },
        "scores": {metric: {"value": value, "answer": row.text} for metric, value in scores.items()} or None,
        "metadata": _metadata(result, row),
    }
    if row.error:
        sample["error"] = {"message": row.error, "traceback": "", "traceback_ansi": ""}
    return sample


def _content(row: Completion) -> Any:
    if row.thinking is None:
        return row.text
    return [{"type": "reasoning", "reasoning": row.thinking}, {"type": "text", "text": row.text}]


def _metadata(result: Result, row: Completion) -> dict[str, Any]:
    """What the log has no field for."""
    prompt = result.prompt
    about = {key: value for key, value in completion_fields(row).items() if key not in ("answer", "thinking", "model")}
    asked = {"category": prompt.category, "tags": prompt.tags, "checks": prompt.checks}
    return about | asked | {"variables": prompt.variables, "sampling": prompt.sampling, "idx": prompt.idx}


def _usage(row: Completion) -> dict[str, int]:
    asked, said = row.prompt_tokens, row.output_tokens
    if asked is None or said is None:
        return {}
    return {"input_tokens": asked, "output_tokens": said, "total_tokens": asked + said}


def _results(source: Source, model: str) -> dict[str, Any]:
    counts = source.run.models[model]
    return {
        "total_samples": counts.total,
        "completed_samples": counts.done,
        "scores": [
            {
                "name": metric,
                "scorer": metric,
                "scored_samples": number,
                "metrics": {"mean": {"name": "mean", "value": mean}},
            }
            for metric, (number, mean) in source.ledger.results.means(source.run.id, model).items()
        ],
    }


def _stats(source: Source, model: str) -> dict[str, Any]:
    asked, said = source.ledger.results.tokens(source.run.id, model)
    usage = {"input_tokens": asked, "output_tokens": said, "total_tokens": asked + said}
    return {
        "started_at": iso(source.run.created),
        "completed_at": iso(source.run.finished) or "",
        "model_usage": {model: usage},
    }
