"""The prompts of a run as a file of prompts: what was asked, to be asked again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.conversation import VARIABLE
from tasks.files.write.jsonl import line
from tasks.files.write.source import Source
from tasks.ledger.records import Prompt

LINES = 1000  # a piece


def write_prompts(source: Source) -> Iterator[bytes]:
    """A prompt a line, as `tasks.prompt_schema.PromptBody` and so `tasks.files.read` take it."""
    runs = source.ledger.runs
    lines: list[bytes] = []
    stored = (result.prompt for page in replace(source, models=()).pages() for result in page)
    late = source.ledger.results.late_turns(source.run.id)
    for prompt in in_order(stored, late, lambda idx: runs.prompts(source.run.id, idx, 1)[0]):
        lines.append(line(prompt_body(prompt)))
        if len(lines) == LINES:
            yield b"".join(lines)
            lines.clear()
    yield b"".join(lines)


def in_order(
    prompts: Iterable[Prompt], late: Mapping[int, Sequence[int]], get: Callable[[int], Prompt]
) -> Iterator[Prompt]:
    """The same prompts with the turns of each conversation one after the other, ``follows`` counting in this order.

    ``late`` are the turns that were added after other conversations had begun, by the idx of their conversation's
    first turn; ``get`` gives one of them.
    """
    number = 0
    places: dict[int, int] = {}  # within the conversation
    waiting: Sequence[int] = ()
    moved = {idx for turns in late.values() for idx in turns}

    def placed(prompt: Prompt) -> Prompt:
        nonlocal number
        places[prompt.idx] = number
        number += 1
        return replace(prompt, follows=None if prompt.follows is None else places[prompt.follows])

    for prompt in prompts:
        if prompt.idx in moved:
            continue
        if prompt.follows is None:
            yield from (placed(get(idx)) for idx in waiting)
            places.clear()
            waiting = late.get(prompt.idx, ())
        yield placed(prompt)
    yield from (placed(get(idx)) for idx in waiting)


def prompt_body(prompt: Prompt) -> dict[str, Any]:
    """A prompt as `tasks.prompt_schema.PromptBody` takes it.

    Its variables are in its texts already. They are left out where a text still has ``{{name}}``, which would be
    filled in once more.
    """
    if prompt.history:
        said: dict[str, Any] = {"messages": [message.to_dict() for message in prompt.messages]}
    else:
        said = {"prompt": prompt.text, "system": prompt.system}
    texts = (message.content for message in prompt.messages)
    is_filled = not any(found[1].strip() for text in texts for found in VARIABLE.finditer(text))
    body = said | {
        "category": prompt.category,
        "reference": prompt.reference,
        "checks": prompt.checks or None,
        "tags": prompt.tags or None,
        "variables": prompt.variables if is_filled else None,
        "custom_id": prompt.custom_id,
        "sampling": prompt.sampling,
        "follows": prompt.follows,
    }
    return {key: value for key, value in body.items() if value is not None}
