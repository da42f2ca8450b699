"""One line of an OpenAI batch's output: what became of one request."""

import hashlib
from typing import Any

from tasks.ledger.records import Completion, Prompt, Run
from tasks.states import FinishReason, Outcome

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
FINISH_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.STOP_STRING: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTEXT: "length",
}
CODES = {
    FinishReason.ERROR: "generation_failed",
    FinishReason.DEADLINE: "deadline_exceeded",
    FinishReason.CANCELLED: "request_cancelled",
}


def batch_line(run: Run, prompt: Prompt, completion: Completion, endpoint: str = CHAT) -> dict[str, Any]:
    """The line of one completion of a prompt: a response, or an error where it failed or was cancelled.

    ``endpoint`` is `CHAT` or `TEXT`; ids are the same each time.
    """
    key = f"{run.id}/{completion.model}/{completion.idx}/{completion.sample}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    is_done = completion.finish_reason.outcome is Outcome.DONE
    body = chat_body if endpoint == CHAT else text_body
    return {
        "id": f"batch_req_{digest}",
        "custom_id": prompt.custom_id or f"prompt-{prompt.idx}",
        "response": {"status_code": 200, "request_id": f"req_{digest}", "body": body(completion, digest)}
        if is_done
        else None,
        "error": None if is_done else _error(completion),
    }


def chat_body(completion: Completion, digest: str) -> dict[str, Any]:
    """The completion as a `chat.completion` object with the id ``digest``; thinking stands in `reasoning_content`."""
    message: dict[str, Any] = {"role": "assistant", "content": completion.text, "refusal": None}
    if completion.thinking is not None:
        message["reasoning_content"] = completion.thinking
    return _body(completion, f"chatcmpl-{digest}", "chat.completion", {"message": message})


def text_body(completion: Completion, digest: str) -> dict[str, Any]:
    """The completion as a `text_completion` object with the id ``digest``."""
    return _body(completion, f"cmpl-{digest}", "text_completion", {"text": completion.text})


def _body(completion: Completion, name: str, kind: str, said: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": FINISH_REASONS[completion.finish_reason]}
    body = {
        "id": name,
        "object": kind,
        "created": int(completion.written),
        "model": completion.model,
        "choices": [choice],
        "system_fingerprint": completion.environment,
    }
    usage = _usage(completion)
    return body | {"usage": usage} if usage else body


def _usage(completion: Completion) -> dict[str, Any] | None:
    """Counts of tokens; None where they are not known, as of answers that were made elsewhere."""
    asked, said = completion.prompt_tokens, completion.output_tokens
    if asked is None or said is None:
        return None
    counts: dict[str, Any] = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    if completion.thinking_tokens is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": completion.thinking_tokens}
    return counts


def _error(completion: Completion) -> dict[str, str]:
    code = CODES[completion.finish_reason]
    return {"code": code, "message": completion.error or code.replace("_", " ").capitalize()}
