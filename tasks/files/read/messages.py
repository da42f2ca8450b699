"""Lists of messages as other programs write them: OpenAI's, ShareGPT's, EvalScope's, inspect's."""

from collections.abc import Mapping
from typing import Any

from tasks.conversation import Message, Role, split
from tasks.errors import InvalidInput
from tasks.files.read.record import Unfit

ROLES: Mapping[str, Role] = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "assistant": Role.ASSISTANT,
    "gpt": Role.ASSISTANT,
    "bot": Role.ASSISTANT,
    "chatgpt": Role.ASSISTANT,
    "model": Role.ASSISTANT,
}


def conversation(given: Any, field: str) -> tuple[str | None, tuple[Message, ...], str, str | None]:
    """System message, history, the message to be answered, and the answer that stands after it, if one does.

    Raises `Unfit`.
    """
    if not isinstance(given, list) or not given:
        raise Unfit(f"{field} is no list of messages.", 'Write it as [{"role": "user", "content": "…"}].')
    said = [_message(message, f"{field}.{place}") for place, message in enumerate(given)]
    answer = None
    if len(said) > 1 and said[-1].role is Role.ASSISTANT and said[-2].role is Role.USER:
        answer = said.pop().content
    try:
        return *split(said, field), answer
    except InvalidInput as error:
        raise Unfit.of_message(error.message) from None


def content(given: Any, field: str) -> str:
    """The text of a message, which may be written in parts. Raises `Unfit` where one of them is an image or a sound."""
    if isinstance(given, str):
        return given
    parts = given if isinstance(given, list) else [given]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    said = [text for text in texts if isinstance(text, str)]
    if not said or len(said) < len(texts):
        raise Unfit(f"{field} holds more than text, or none.", "Leave out all but text: models here read nothing else.")
    return "".join(said)


def _message(given: Any, field: str) -> Message:
    if not isinstance(given, Mapping):
        raise Unfit(f"{field} is no message.", 'Write it as {"role": "user", "content": "…"}.')
    name = given.get("role", given.get("from"))
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise Unfit(f"{field} has the role {name!r}.", "Write system, user or assistant.")
    return Message(role, content(given.get("content", given.get("value")), f"{field}.content"))
