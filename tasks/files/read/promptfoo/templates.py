"""Prompts of a configuration, before their variables are filled in: a text, or messages."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.conversation import VARIABLE
from tasks.files.read.promptfoo.assertions import EXECUTED, NOT_READ, refuse_elsewhere
from tasks.files.read.promptfoo.cases import Case, Untaken
from tasks.files.read.reading import Problem

FILE_NAME = re.compile(
    r"\S+\.(txt|md|j2|json|jsonl|ya?ml|csv|py|[cm]?[jt]s|sh|bash|rb|pl)(:\w+)?|\S*\*\S*\.\w+|\w+://\S+"
)
BLOCK = re.compile(r"\{%|\{#")
PLAIN_NAME = re.compile(r"[\w .:\-\[\]]+")


@dataclass(frozen=True)
class Template:
    """Either a text or messages with ``{{name}}`` in them."""

    text: str = ""
    messages: tuple[Mapping[str, str], ...] = ()

    def around(self, case: Case) -> dict[str, Any]:
        """As a prompt takes it, with the prefix and suffix of a test around what the user says last."""
        if not self.messages:
            return {"prompt": case.prefix + self.text + case.suffix}
        *before, last = self.messages
        return {"messages": [*before, {**last, "content": case.prefix + last["content"] + case.suffix}]}

    def refuse_code(self, case: Case) -> None:
        """Raises `Untaken` for what is more than a variable with a value."""
        for text in (case.prefix, self.text, *(message["content"] for message in self.messages), case.suffix):
            if BLOCK.search(text):
                raise Untaken("The prompt has a block of nunjucks ({% … %}), which is not executed.", EXECUTED)
            for found in VARIABLE.finditer(text):
                name = found[1].strip()
                if not PLAIN_NAME.fullmatch(name):
                    problem = f"{found[0]} has a filter or an expression, which is not executed."
                    raise Untaken(problem, "Put what it would give into a variable of its own.")
                if name not in case.variables:
                    raise Untaken(f"The prompt has {found[0]}, but the test has no such variable.", "Add it to vars.")


def templates(config: Mapping[str, Any]) -> Iterator[Template | Problem]:
    """The prompts of a configuration, or why one is not taken over."""
    given = config.get("prompts") or []
    for one in given if isinstance(given, list) else [given]:
        try:
            yield template(one)
        except Untaken as error:
            yield Problem(1, error.reason, error.remedy)


def template(given: Any) -> Template:
    """A text, messages, or an object with ``raw``. Raises `Untaken` for what lies in another file."""
    if isinstance(given, Mapping):
        given = given.get("raw") or given.get("id")
    if isinstance(given, list):
        return _conversation(given)
    if not isinstance(given, str) or not given.strip():
        raise Untaken("A prompt is neither text nor messages.", 'Write it as a text, or as {"raw": "…"}.')
    refuse_elsewhere(given)
    if FILE_NAME.fullmatch(given.strip()):
        raise Untaken(f"The prompt {given.strip()[:100]} is the name of a file.", NOT_READ)
    if given.lstrip().startswith("["):
        try:
            return _conversation(json.loads(given))
        except (ValueError, RecursionError):
            return Template(given)
    return Template(given)


def _conversation(messages: Any) -> Template:
    said = [message for message in messages if isinstance(message, Mapping)]
    texts = [{key: message.get(key) for key in ("role", "content")} for message in said]
    if not said or len(said) < len(messages) or not all(isinstance(v, str) for one in texts for v in one.values()):
        raise Untaken("A message of a prompt has no role or no text.", "Write role and content as texts.")
    return Template(messages=tuple({key: str(value) for key, value in one.items()} for one in texts))
