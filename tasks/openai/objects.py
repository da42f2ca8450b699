"""The objects that OpenAI's interface answers with, made from completions of the ledger."""

import re
from collections.abc import Sequence
from typing import Any

from tasks.ledger.records import Completion
from tasks.openai.bodies import Endpoint
from tasks.states import FinishReason, Outcome

FINISH = {
    FinishReason.STOP: "stop",
    FinishReason.STOP_STRING: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTEXT: "length",
}
PREFIX = {Endpoint.CHAT: "chatcmpl", Endpoint.COMPLETIONS: "cmpl"}
TOO_LONG = re.compile(r"The prompt has \d+ tokens; this model's context holds ")  # as the engine says it
CONTEXT_EXCEEDED = "context_length_exceeded"
OBJECT = {Endpoint.CHAT: "chat.completion", Endpoint.COMPLETIONS: "text_completion"}


def answer_object(endpoint: Endpoint, answer_id: str, rows: Sequence[Completion]) -> dict[str, Any]:
    """A whole answer: the completions of its prompts in their order, all of which ended well.

    ``answer_id`` is the id without the prefix that tells its kind.
    """
    return {
        "id": f"{PREFIX[endpoint]}-{answer_id}",
        "object": OBJECT[endpoint],
        "created": int(rows[0].created or rows[0].written),
        "model": rows[0].model,
        "choices": [_choice(endpoint, index, row) for index, row in enumerate(rows)],
        "usage": usage_of(rows),
    }


def usage_of(rows: Sequence[Completion]) -> dict[str, Any] | None:
    """Tokens of an answer, each prompt counted once; None where the model's server did not tell them."""
    prompts = list({row.idx: row.prompt_tokens for row in rows}.values())
    outputs = [row.output_tokens for row in rows]
    if None in prompts or None in outputs:
        return None
    read, written = sum(number or 0 for number in prompts), sum(number or 0 for number in outputs)
    thought = sum(row.thinking_tokens or 0 for row in rows)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def problem_of_answer(rows: Sequence[Completion]) -> tuple[str, str] | None:
    """Code and message of the first of these completions that did not end well."""
    for row in rows:
        if row.finish_reason.outcome is not Outcome.DONE:
            if TOO_LONG.match(row.error or ""):
                return CONTEXT_EXCEEDED, row.error or ""
            return row.finish_reason.value, row.error or f"The completion ended with {row.finish_reason}."
    return None


def _choice(endpoint: Endpoint, index: int, row: Completion) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": index, "finish_reason": FINISH[row.finish_reason], "logprobs": None}
    if endpoint is Endpoint.COMPLETIONS:
        return choice | {"text": row.text}
    message = {"role": "assistant", "content": row.text, "refusal": None}
    return choice | {"message": message | ({"reasoning_content": row.thinking} if row.thinking else {})}
