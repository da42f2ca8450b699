"""The values of prompts and completions by name, one a column: what tables and records have in common.

Types are those of a column; None stands for what is not known or does not apply.
"""

from typing import Any

import orjson

from tasks.files.write.naming import iso
from tasks.ledger.records import Completion, Prompt
from tasks.measures.answers import completion_phases
from tasks.states import Origin

PROMPT_COLUMNS: dict[str, type] = {
    "idx": int,
    "custom_id": str,
    "category": str,
    "tags": str,
    "system": str,
    "history": str,
    "prompt": str,
    "follows": int,
    "reference": str,
    "checks": str,
    "variables": str,
    "sampling": str,
}
PHASE_COLUMNS: dict[str, type] = {
    "queue_seconds": float,
    "load_seconds": float,
    "slot_wait_seconds": float,
    "ttft_seconds": float,
    "tpot_seconds": float,
    "service_seconds": float,
    "e2e_seconds": float,
    "tokens_per_second": float,
    "characters_per_second": float,
    "ms_a_character": float,
}
COMPLETION_COLUMNS: dict[str, type] = {
    "model": str,
    "sample": int,
    "answer": str,
    "thinking": str,
    "finish_reason": str,
    "error": str,
    "origin": str,
    "prompt_tokens": int,
    "output_tokens": int,
    "thinking_tokens": int,
    "characters": int,
    **PHASE_COLUMNS,
    "batch_size": int,
    "cold": bool,
    "attempt": int,
    "retries": int,
    "seed": int,
    "energy_joules": float,
    "peak_rss": int,
    "peak_device_memory": int,
    "environment": str,
    "written": str,
}
NO_PHASES: dict[str, float | None] = dict.fromkeys(PHASE_COLUMNS)


def prompt_fields(prompt: Prompt) -> dict[str, Any]:
    """The `PROMPT_COLUMNS` of a prompt; what is no single value stands there as JSON."""
    return {
        "idx": prompt.idx,
        "custom_id": prompt.custom_id,
        "category": prompt.category,
        "tags": ", ".join(prompt.tags) or None,
        "system": prompt.system,
        "history": _json([message.to_dict() for message in prompt.history]),
        "prompt": prompt.text,
        "follows": prompt.follows,
        "reference": prompt.reference,
        "checks": _json(prompt.checks),
        "variables": _json(prompt.variables),
        "sampling": _json(prompt.sampling),
    }


def completion_fields(row: Completion) -> dict[str, Any]:
    """The `COMPLETION_COLUMNS` of a completion."""
    return {
        "model": row.model,
        "sample": row.sample,
        "answer": row.text,
        "thinking": row.thinking,
        "finish_reason": row.finish_reason.value,
        "error": row.error,
        "origin": row.origin.value,
        "prompt_tokens": row.prompt_tokens,
        "output_tokens": row.output_tokens,
        "thinking_tokens": row.thinking_tokens,
        "characters": row.characters,
        **phase_fields(row),
        "batch_size": row.batch_size,
        "cold": row.cold,
        "attempt": row.attempt,
        "retries": row.retries,
        "seed": row.seed,
        "energy_joules": row.energy_joules,
        "peak_rss": row.peak_rss,
        "peak_device_memory": row.peak_device_memory,
        "environment": row.environment,
        "written": iso(row.written),
    }


def phase_fields(row: Completion) -> dict[str, float | None]:
    """The `PHASE_COLUMNS` of a completion, to the microsecond; an answer that was not computed here has none."""
    if row.origin is not Origin.COMPUTED:
        return NO_PHASES
    phases = completion_phases(row)
    return {
        "queue_seconds": _rounded(phases.queue),
        "load_seconds": _rounded(phases.load),
        "slot_wait_seconds": _rounded(phases.slot_wait),
        "ttft_seconds": _rounded(phases.ttft),
        "tpot_seconds": _rounded(phases.tpot),
        "service_seconds": _rounded(phases.service),
        "e2e_seconds": _rounded(phases.e2e),
        "tokens_per_second": _rounded(phases.output_rate),
        "characters_per_second": _rounded(phases.characters_per_second),
        "ms_a_character": _rounded(phases.ms_a_character),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _json(value: Any) -> str | None:
    return orjson.dumps(value).decode() if value else None
