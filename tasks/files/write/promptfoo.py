"""Results as promptfoo writes them (version 3): a prompt a test case, a column a model."""

from collections.abc import Iterator
from typing import Any

import orjson

from tasks.files.write.fields import completion_fields
from tasks.files.write.naming import iso
from tasks.files.write.source import Source
from tasks.ledger.records import Completion, Prompt
from tasks.ledger.results import Result, Scores
from tasks.states import Origin, Outcome

VERSION = 3
PROMPT = "{{prompt}}"
NO_FAILURE, ERROR = 0, 2


class Column:
    """What promptfoo sums up over the results of a model."""

    def __init__(self) -> None:
        self.passed = 0
        self.errors = 0
        self.milliseconds = 0.0
        self.tokens = {"prompt": 0, "completion": 0, "total": 0, "cached": 0, "numRequests": 0}

    def add(self, row: Completion, latency: float | None, usage: dict[str, int]) -> None:
        is_done = row.finish_reason.outcome is Outcome.DONE
        self.passed += is_done
        self.errors += not is_done
        self.milliseconds += latency or 0.0
        for name, tokens in usage.items():
            self.tokens[name] += tokens
        self.tokens["numRequests"] += 1

    def metrics(self) -> dict[str, Any]:
        return {
            "score": self.passed,
            "testPassCount": self.passed,
            "testFailCount": 0,
            "testErrorCount": self.errors,
            "assertPassCount": 0,
            "assertFailCount": 0,
            "totalLatencyMs": round(self.milliseconds),
            "tokenUsage": self.tokens,
        }


def write_promptfoo(source: Source) -> Iterator[bytes]:
    """Results, then what is summed up over them, which is known only then. An answer passes when it ended well.

    No assertion is evaluated, so none fails; scores stand in ``namedScores``. Each sample is a test case.
    """
    run = source.run
    summary = {"version": VERSION, "timestamp": iso(run.created)}
    yield b'{"evalId":%b,"results":%b,"results":[' % (orjson.dumps(_eval_id(source)), orjson.dumps(summary)[:-1])
    columns = {model: Column() for model in source.models}
    places = {model: place for place, model in enumerate(source.models)}
    before = b""
    for page in source.pages():
        results = []
        for result in page:
            for row, scores in zip(result.completions, result.scores, strict=True):
                results.append(orjson.dumps(_result(source, result, row, scores, places[row.model], columns)))
        if results:
            yield before + b",\n".join(results)
            before = b",\n"
    tail = {"prompts": [_prompt(model, column) for model, column in columns.items()], "stats": _stats(columns)}
    yield b"]," + orjson.dumps(tail)[1:]
    rest = {
        "config": {"description": run.title or run.id, "providers": list(source.models), "prompts": [PROMPT]},
        "shareableUrl": None,
        "metadata": {"evaluationCreatedAt": iso(run.created), "touchstone": source.header()},
    }
    yield b"," + orjson.dumps(rest)[1:] + b"\n"


def _eval_id(source: Source) -> str:
    return f"eval-{source.run.id[:3]}-{(iso(source.run.created) or '')[:19]}"


def _prompt(model: str, column: Column) -> dict[str, Any]:
    return {
        "id": model,
        "raw": PROMPT,
        "label": PROMPT,
        "provider": model,
        "metrics": column.metrics(),
    }


def _result(
    source: Source, result: Result, row: Completion, scores: Scores, place: int, columns: dict[str, Column]
) -> dict[str, Any]:
    about = completion_fields(row)
    service = about["service_seconds"]
    latency = None if service is None else round(service * 1000)
    usage = _usage(row)
    columns[row.model].add(row, latency, usage)
    is_done = row.finish_reason.outcome is Outcome.DONE
    variables = _variables(result.prompt)
    response = {"output": row.text, "tokenUsage": usage, "cached": row.origin is Origin.CACHED}
    return {
        "id": f"{source.run.id}-{row.idx}-{row.sample}-{place}",
        "promptIdx": place,
        "promptId": row.model,
        "testIdx": row.idx * source.run.samples + row.sample,
        "testCase": _test_case(result.prompt, variables),
        "prompt": {"raw": _asked(result, row), "label": PROMPT},
        "provider": {"id": row.model, "label": row.model},
        "vars": variables,
        "response": response | {"finishReason": row.finish_reason},
        "success": is_done,
        "score": float(is_done),
        "failureReason": NO_FAILURE if is_done else ERROR,
        "namedScores": dict(scores),
        "cost": 0,
        "metadata": {name: about[name] for name in about if name not in ("answer", "model")},
    } | _known({"latencyMs": latency, "error": row.error or (None if is_done else row.finish_reason.value)})


def _variables(prompt: Prompt) -> dict[str, str]:
    return {"prompt": prompt.text} | {key: text for key, text in (prompt.variables or {}).items() if key != "prompt"}


def _test_case(prompt: Prompt, variables: dict[str, str]) -> dict[str, Any]:
    about = {"category": prompt.category, "reference": prompt.reference, "custom_id": prompt.custom_id}
    more = {"tags": prompt.tags or None, "checks": prompt.checks or None, "idx": prompt.idx}
    return {"vars": variables, "assert": [], "metadata": _known(about | more)}


def _asked(result: Result, row: Completion) -> str:
    messages = result.messages(row.model, row.sample)
    if len(messages) == 1:
        return messages[0].content
    return orjson.dumps([message.to_dict() for message in messages]).decode()


def _usage(row: Completion) -> dict[str, int]:
    if row.prompt_tokens is None or row.output_tokens is None:
        return {}
    total = row.prompt_tokens + row.output_tokens
    if row.origin is Origin.CACHED:
        return {"cached": total, "total": total}
    return {"prompt": row.prompt_tokens, "completion": row.output_tokens, "total": total}


def _stats(columns: dict[str, Column]) -> dict[str, Any]:
    every = columns.values()
    tokens = {name: sum(column.tokens[name] for column in every) for name in Column().tokens}
    return {
        "successes": sum(column.passed for column in every),
        "failures": 0,
        "errors": sum(column.errors for column in every),
        "tokenUsage": tokens,
        "durationMs": round(sum(column.milliseconds for column in every)),
    }


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
