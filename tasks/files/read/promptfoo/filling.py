"""A prompt of promptfoo with the variables of a test in it, and everything that belongs to the test."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.conversation import VARIABLE, NewPrompt
from tasks.errors import InvalidInput
from tasks.files.read.promptfoo.cases import Case, Untaken
from tasks.files.read.promptfoo.templates import Template
from tasks.files.read.reading import Reading
from tasks.prompt_schema import MAX_NAME, PromptBody
from tasks.schema import validated


def prompt_of(template: Template, case: Case, reading: Reading) -> NewPrompt:
    """The prompt as it is stored. Raises `Untaken`."""
    template.refuse_code(case)
    checks = [filled_in(check, case.variables) for check in case.checks]
    said = template.around(case)
    has_system = any(message["role"] == "system" for message in said.get("messages", ()))
    right = [value for value in map(_equal, _single(checks)) if value]
    category = case.metadata.get("category")
    body = {
        **said,
        "system": None if has_system else reading.system,
        "category": category if isinstance(category, str) and category else reading.category,
        "reference": right[0] if right else None,
        "checks": checks,
        "tags": list(dict.fromkeys(tag[:MAX_NAME] for tag in _tags(case) if tag)),
        "variables": dict(case.variables) or None,
    }
    try:
        return validated(PromptBody, body).to_prompt("")
    except InvalidInput as error:
        raise Untaken(error.message, "Correct the test, or leave it out.") from None


def filled_in(value: Any, variables: Mapping[str, str]) -> Any:
    """The same value with variables in place of ``{{name}}`` in its texts; what is no variable stays as it is."""
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: variables.get(found[1].strip(), found[0]), value)
    if isinstance(value, Mapping):
        return {str(key): filled_in(item, variables) for key, item in value.items()}
    return [filled_in(item, variables) for item in value] if isinstance(value, list) else value


def _single(checks: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The checks, those of sets too."""
    for check in checks:
        yield from _single(check["assert"]) if check["type"] == "assert-set" else [check]


def _equal(check: Mapping[str, Any]) -> str | None:
    """What an answer must equal, which is an answer known to be right."""
    value = check.get("value")
    return value if check["type"] == "equals" and isinstance(value, str) else None


def _tags(case: Case) -> Iterator[str]:
    """Description and metadata: tags as they are, everything else by its key."""
    yield case.description
    for key, value in case.metadata.items():
        for item in value if isinstance(value, list) else [value]:
            if key == "tags":
                yield str(item)
            elif key != "category":
                yield f"{key}: {item}"
