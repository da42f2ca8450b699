"""Texts and ids within records that other programs wrote, whose shapes are not to be relied on."""

from collections.abc import Iterator, Mapping
from typing import Any


def text_of(content: Any) -> str | None:
    """The text of a message's content: itself, or its parts of text put together. None where there is none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [part["text"] for part in objects_of(content) if isinstance(part.get("text"), str)]
    return "".join(texts) if texts else None


def asked(messages: Any) -> str | None:
    """The last text of a user in ``messages``, or ``messages`` itself where it is a text."""
    if isinstance(messages, str):
        return messages
    said = [text_of(message.get("content")) for message in objects_of(messages) if message.get("role") == "user"]
    return said[-1] if said else None


def id_of(value: Any) -> str | None:
    """An id as text; numbers are ids too."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) or None


def name_of(value: Any) -> str | None:
    """A name, such as that of a model, if it is one."""
    return value.strip() or None if isinstance(value, str) else None


def objects_of(value: Any) -> Iterator[Mapping[str, Any]]:
    """Those items of a list that are objects; nothing where ``value`` is no list."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, Mapping):
            yield item


def object_of(value: Any) -> Mapping[str, Any]:
    """``value`` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
