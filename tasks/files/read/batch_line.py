"""Lines of OpenAI's batch files: a request each, whose settings become those of the prompt."""

from collections.abc import Mapping
from typing import Any

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput
from tasks.files.read.messages import content, conversation
from tasks.files.read.record import Notes, Unfit
from tasks.sampling import check_settings

URLS = ("/v1/chat/completions", "/v1/completions")
SETTINGS: Mapping[str, str] = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "stop": "stop",
}
SAID = frozenset(("messages", "prompt", *SETTINGS))
FOREIGN = ("tools", "functions", "audio", "suffix")  # what an answer would be without them is no answer to the request


def is_batch_line(record: Mapping[str, Any]) -> bool:
    return "body" in record and ("custom_id" in record or "url" in record)


def batch_prompt(record: Mapping[str, Any], notes: Notes) -> NewPrompt:
    """The prompt of a request; its model is left aside, as every model of the run answers it. Raises `Unfit`."""
    body = record["body"]
    if not isinstance(body, Mapping):
        raise Unfit("body is no object.", 'Write it as {"messages": […]}.')
    _refuse(record, body)
    for name in body:
        if name == "model":
            notes.add("The model that a line names is left aside: the models of the run answer all prompts.")
        elif name not in SAID and body[name] is not None:
            notes.add(f"The setting {name} of a line is not known here and is left aside.")
    own: dict[str, Any] = {"custom_id": _id(record), "sampling": sampling_of(body, "body")}
    if "messages" not in body:
        return NewPrompt(content(body.get("prompt"), "body.prompt"), **own)
    system, history, text, answer = conversation(body["messages"], "body.messages")
    if answer is not None:
        raise Unfit("body.messages ends with an answer.", "End it with a message of the user.")
    return NewPrompt(text, system=system, history=history, **own)


def sampling_of(body: Mapping[str, Any], field: str) -> dict[str, Any] | None:
    """The decoding settings of a request by our names. Raises `Unfit`."""
    given = {ours: body[theirs] for theirs, ours in SETTINGS.items() if body.get(theirs) is not None}
    try:
        return check_settings(given, field) or None if given else None
    except InvalidInput as error:
        theirs = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        raise Unfit.of_message(error.message.replace("max_new_tokens", theirs)) from None


def _refuse(record: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    if record.get("method", "POST") != "POST":
        raise Unfit(f"method is {record['method']!r}.", 'Write "POST".')
    if record.get("url", URLS[0]) not in URLS:
        raise Unfit(f"url is {record['url']!r}.", f"Write {' or '.join(URLS)}.")
    for name in FOREIGN:
        if body.get(name):
            raise Unfit(f"body has {name}, which no model here takes.", "Remove it.")
    wanted = body.get("response_format")
    if isinstance(wanted, Mapping) and wanted.get("type") != "text":
        raise Unfit("body asks for a response_format, which no model here keeps to.", "Remove it.")


def _id(record: Mapping[str, Any]) -> str:
    given = record.get("custom_id")
    if not isinstance(given, str) or not given:
        raise Unfit("custom_id is no text, or empty.", "Give each line an id of its own.")
    return given
