"""JSON Lines with everything: a record of the run first, then a record a completion."""

from collections.abc import Iterator
from typing import Any

import orjson

from tasks.files.write.fields import completion_fields
from tasks.files.write.source import Source
from tasks.ledger.records import Prompt


def line(value: Any) -> bytes:
    """One line of JSON."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def write_jsonl(source: Source) -> Iterator[bytes]:
    """Records are told apart by ``type``: run, completion, and environment for one that the first does not have."""
    header = source.header()
    yield line(header)
    known = set(header["environments"])
    for page in source.pages():
        used = {row.environment for result in page for row in result.completions if row.environment}
        new = source.environments(used - known) if used - known else {}
        known |= used
        lines = [line({"type": "environment", "id": key, "facts": facts}) for key, facts in new.items()]
        for result in page:
            asked = prompt_record(result.prompt)
            for row, scores in zip(result.completions, result.scores, strict=True):
                lines.append(line({"type": "completion", **asked, **completion_fields(row), "scores": scores}))
        yield b"".join(lines)


def prompt_record(prompt: Prompt) -> dict[str, Any]:
    """A prompt with all that belongs to it. ``messages`` are its own, without those of a turn that it follows."""
    return {
        "idx": prompt.idx,
        "custom_id": prompt.custom_id,
        "category": prompt.category,
        "tags": prompt.tags,
        "prompt": prompt.text,
        "messages": [message.to_dict() for message in prompt.messages],
        "follows": prompt.follows,
        "reference": prompt.reference,
        "checks": prompt.checks,
        "variables": prompt.variables,
        "sampling": prompt.sampling,
    }
