"""Every Eval Ever, version 0.3: an aggregate in JSON and its samples for each model, in its datastore's folders."""

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import orjson

from tasks.files.write.fields import phase_fields
from tasks.files.write.jsonl import line
from tasks.files.write.naming import safe_name
from tasks.files.write.source import Source
from tasks.ledger.records import Completion
from tasks.ledger.results import Result, Scores
from tasks.measures.grace import DIVERSITY, IDENTIFICATION, VALID, goodput_metric
from tasks.measures.latency import PROFILES
from tasks.registry.entry import LocalModel
from tasks.states import Outcome
from tasks.version import VERSION

SCHEMA_VERSION = "0.3.0"
ANSWERED = "answered"  # the metric that every completion has: whether it ended well
SHARES = {ANSWERED, VALID, IDENTIFICATION, DIVERSITY, *map(goodput_metric, PROFILES.values())}  # from 0 to 1


class Record:
    """One model's pair of files. Values are summed up as the samples are written, so samples go first."""

    def __init__(self, source: Source, model: str):
        self.source = source
        self.run = source.run
        self.model = model
        self.model_id = _model_id(source, model)
        self.name = _uuid(f"{source.run.id}/{model}")
        self.evaluation_id = f"touchstone/{self.model_id}/{source.run.id}"
        self.totals: dict[str, list[float]] = defaultdict(list)
        self.rows = 0
        self.digest = hashlib.sha256()
        developer, name = (safe_name(part, "unknown") for part in self.model_id.rsplit("/", 1))
        self.folder = f"data/touchstone/{developer}/{name}"

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        yield f"{self.folder}/{self.name}_samples.jsonl", self.samples()
        yield f"{self.folder}/{self.name}.json", iter((orjson.dumps(self.aggregate(), option=orjson.OPT_INDENT_2),))

    def samples(self) -> Iterator[bytes]:
        """A line for each completion and metric, `ANSWERED` before those that there are scores of."""
        for page in self.source.only(self.model).pages():
            lines: list[bytes] = []
            for result in page:
                for row, scores in zip(result.completions, result.scores, strict=True):
                    lines += map(line, self.sample(result, row, scores))
            piece = b"".join(lines)
            self.digest.update(piece)
            yield piece

    def sample(self, result: Result, row: Completion, scores: Scores) -> Iterator[dict[str, Any]]:
        shared = _instance(result, row) | {"evaluation_id": self.evaluation_id, "model_id": self.model_id}
        answered = float(row.finish_reason.outcome is Outcome.DONE)
        for metric, value in {ANSWERED: answered, **scores}.items():
            number, total = self.totals.get(metric, (0, 0.0))
            self.totals[metric] = [number + 1, total + value]
            self.rows += 1
            yield shared | {
                "evaluation_name": metric,
                "evaluation_result_id": f"{self.evaluation_id}/{metric}",
                "evaluation": {"score": value, "is_correct": value >= 1.0, "num_turns": len(result.earlier) + 1},
            }

    def aggregate(self) -> dict[str, Any]:
        """The model with the mean of each metric; it is right once the samples were read to their end."""
        return {
            "schema_version": SCHEMA_VERSION,
            "evaluation_id": self.evaluation_id,
            "evaluation_timestamp": str(int(self.run.created)),
            "retrieved_timestamp": str(int(self.run.finished or self.run.created)),
            "source_metadata": {
                "source_name": self.run.title or f"Touchstone run {self.run.id}",
                "source_type": "evaluation_run",
                "source_organization_name": "unknown",
                "evaluator_relationship": "third_party",
            },
            "eval_library": {"name": "touchstone", "version": VERSION},
            "model_info": _model_info(self.source, self.model, self.model_id),
            "evaluation_results": [self.outcome(metric) for metric in self.totals],
            "detailed_evaluation_results": {
                "format": "jsonl",
                "file_path": f"{self.folder}/{self.name}_samples.jsonl",
                "hash_algorithm": "sha256",
                "checksum": self.digest.hexdigest(),
                "total_rows": self.rows,
            },
        }

    def outcome(self, metric: str) -> dict[str, Any]:
        number, total = self.totals[metric]
        bounds: tuple[Any, Any] = (0.0, 1.0) if metric in SHARES else ("-Infinity", "Infinity")
        return {
            "evaluation_result_id": f"{self.evaluation_id}/{metric}",
            "evaluation_name": metric,
            "source_data": {
                "dataset_name": self.run.set_name or self.run.title or self.run.prompt_set or self.run.id,
                "source_type": "other",
                "additional_details": {"digest": self.run.prompt_set or "", "prompts": str(self.run.prompts)},
            },
            "metric_config": {
                "metric_id": metric,
                "metric_name": metric,
                "lower_is_better": False,
                "score_type": "continuous",
                "min_score": bounds[0],
                "max_score": bounds[1],
            },
            "score_details": {"score": total / number, "uncertainty": {"num_samples": int(number)}},
            "generation_config": _generation(self.source.settings(self.model)),
        }


def every_eval_ever_files(source: Source) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The files of all models, by their path from the datastore's root; each is to be read to its end in turn."""
    for model in source.models:
        yield from Record(source, model).files()


def _instance(result: Result, row: Completion) -> dict[str, Any]:
    """What all lines of a completion share."""
    prompt, phases = result.prompt, phase_fields(row)
    reference = [prompt.reference] if prompt.reference is not None else []
    hashed = hashlib.sha256((prompt.text + "".join(reference)).encode()).hexdigest()
    sample_id = prompt.custom_id or str(prompt.idx)
    about = {"category": prompt.category, "tags": ", ".join(prompt.tags) or None}
    ended = {"finish_reason": row.finish_reason.value, "origin": row.origin.value, "sample": str(row.sample)}
    return {
        "schema_version": SCHEMA_VERSION,
        "sample_id": f"{sample_id}#{row.sample}" if row.sample else sample_id,
        "sample_hash": hashed,
        "input": {"raw": prompt.text, "reference": reference},
        **_said(result, row),
        "answer_attribution": [],
        "token_usage": _usage(row),
        "performance": {
            "latency_ms": _milliseconds(phases["service_seconds"]),
            "time_to_first_token_ms": _milliseconds(phases["ttft_seconds"]),
        },
        "error": row.error,
        "metadata": {key: value for key, value in (about | ended).items() if value},
    }


def _said(result: Result, row: Completion) -> dict[str, Any]:
    """The answer of a prompt of one message, else the whole conversation."""
    messages = result.messages(row.model, row.sample)
    if len(messages) == 1:
        trace = None if row.thinking is None else [row.thinking]
        output = {"raw": [row.text], "reasoning_trace": trace}
        return {"interaction_type": "single_turn", "output": output, "messages": None}
    turns: list[dict[str, Any]] = [message.to_dict() for message in messages]
    turns.append({"role": "assistant", "content": row.text, "reasoning_trace": row.thinking})
    numbered = [{"turn_idx": number, **turn} for number, turn in enumerate(turns)]
    return {"interaction_type": "multi_turn", "output": None, "messages": numbered}


def _usage(row: Completion) -> dict[str, int | None] | None:
    asked, said = row.prompt_tokens, row.output_tokens
    if asked is None or said is None:
        return None
    counts = {"input_tokens": asked, "output_tokens": said, "total_tokens": asked + said}
    return counts | {"reasoning_tokens": row.thinking_tokens}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _model_id(source: Source, model: str) -> str:
    """OWNER/NAME, as the hub has it where the model comes from there."""
    entry = source.run.entries.get(model)
    is_hub = entry and entry.source and entry.source == entry.location and entry.source.count("/") == 1
    return str(entry.source) if entry and is_hub else f"local/{model}"


def _model_info(source: Source, model: str, model_id: str) -> dict[str, Any]:
    entry = source.run.entries.get(model)
    is_hub = not model_id.startswith("local/")
    details = {
        "deployment_type": "self_deployed" if isinstance(entry, LocalModel) else "unknown",
        "model_availability": "open_weights" if is_hub else "unknown",
        "origin": source.model(model)["origin"].value,
    }
    facts = {"entry": source.model(model)["entry"], "environments": source.only(model).environments()}
    info: dict[str, Any] = {"name": model, "id": model_id, "developer": model_id.split("/")[0]}
    if isinstance(entry, LocalModel):
        info["inference_engine"] = {"name": "touchstone", "version": VERSION}
    return info | {"additional_details": details | {key: orjson.dumps(fact).decode() for key, fact in facts.items()}}


def _generation(settings: dict[str, Any]) -> dict[str, Any]:
    args: dict[str, Any] = {name: settings[name] for name in ("temperature", "top_p", "top_k") if name in settings}
    if "max_new_tokens" in settings:
        args["max_tokens"] = settings["max_new_tokens"]
    if settings.get("template"):
        args["prompt_template"] = settings["template"]
    rest = settings.keys() - {"temperature", "top_p", "top_k", "max_new_tokens", "template"}
    return {
        "generation_args": args,
        "additional_details": {name: orjson.dumps(settings[name]).decode() for name in sorted(rest)},
    }


def _uuid(text: str) -> str:
    """A random-looking UUID (version 4) that is the same each time."""
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))
