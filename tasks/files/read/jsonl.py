"""Files of JSON objects, one a line: conversations with all that belongs to them, as the API takes them."""

import json
from collections.abc import Iterator
from typing import IO, Any

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput
from tasks.prompt_schema import PromptBody
from tasks.schema import validated

MAX_LINE_BYTES = 2**20
ADVICE = 'write an object such as {"prompt": "…"} or {"messages": […]} on each line'


def read_jsonl(stream: IO[bytes], name: str) -> Iterator[NewPrompt]:
    """The prompts of a file called ``name``; empty lines are left out, ``follows`` counts prompts from 0.

    Raises `InvalidInput` with the number of the line.
    """
    number = 0
    found = False
    while raw := stream.readline(MAX_LINE_BYTES):
        number += 1
        line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if not line.strip():
            continue
        try:
            yield validated(PromptBody, _object(line)).to_prompt("")
        except InvalidInput as error:
            raise InvalidInput(f"{name}, line {number}: {error.message}", "file") from None
        found = True
    if not found:
        raise InvalidInput(f"{name} holds no prompt; {ADVICE}.", "file")


def _object(line: bytes) -> Any:
    if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
        raise InvalidInput(f"The line is longer than {MAX_LINE_BYTES} bytes; shorten it.")
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        raise InvalidInput("The line is not UTF-8 text; save the file as UTF-8 and send it again.") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"The line is no JSON; {ADVICE}.") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"The line is no JSON object; {ADVICE}.")
    return value
