"""Samples as lm-evaluation-harness logs them: a line a prompt, all samples of it in one."""

import hashlib
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import orjson

from tasks.files.write.jsonl import line, prompt_record
from tasks.files.write.source import Source
from tasks.ledger.results import Result
from tasks.states import Outcome

ARGUMENTS = {"max_new_tokens": "max_gen_toks", "temperature": "temperature", "top_k": "top_k", "top_p": "top_p"}


def write_lm_eval(source: Source) -> Iterator[bytes]:
    """Answers of one model. A metric's value is the mean over a prompt's samples; cancelled samples are left out."""
    (model,) = source.models
    settings = source.settings(model)
    for page in source.pages():
        yield b"".join(line(_sample(result, model, settings)) for result in page if _ended(result))


def _ended(result: Result) -> list[int]:
    rows = enumerate(result.completions)
    return [number for number, row in rows if row.finish_reason.outcome is not Outcome.CANCELLED]


def _sample(result: Result, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    prompt = result.prompt
    ended = _ended(result)
    rows = [result.completions[number] for number in ended]
    messages = [message.to_dict() for message in result.messages(model, rows[0].sample)]
    asked = messages[0]["content"] if len(messages) == 1 else orjson.dumps(messages).decode()
    doc = prompt_record(prompt)
    target = prompt.reference or ""
    values = [result.scores[number] for number in ended]
    metrics = {name: fmean(each[name] for each in values if name in each) for name in sorted(set().union(*values))}
    used = settings | dict(prompt.sampling or {})
    return {
        "doc_id": prompt.idx,
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": asked, "arg_1": _arguments(used)}},
        "resps": [[row.text for row in rows]],
        "filtered_resps": [rows[0].text],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": _hash(orjson.dumps(doc)),
        "prompt_hash": _hash(asked.encode()),
        "target_hash": _hash(target.encode()),
        "finish_reasons": [row.finish_reason for row in rows],
        "errors": [row.error for row in rows],
        "origins": [row.origin for row in rows],
        **metrics,
    }


def _arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Decoding settings by the names that the harness gives them."""
    named = {theirs: settings[ours] for ours, theirs in ARGUMENTS.items() if settings.get(ours) is not None}
    return {"until": list(settings.get("stop") or ()), "do_sample": settings.get("temperature") != 0, **named}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
