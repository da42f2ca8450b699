"""Files of prompts, read as streams: which format one has shows in how it begins."""

import io
import re
from collections.abc import Iterator
from typing import IO

from tasks.conversation import NewPrompt
from tasks.files.read.jsonl import read_jsonl
from tasks.files.read.text import read_text

LOOK_BYTES = 4096
BEGINS_AS_OBJECT = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"')

__all__ = ["read"]


def read(stream: IO[bytes], name: str) -> Iterator[NewPrompt]:
    """The prompts of a file ``name``: JSON objects, one a line, where it is named .jsonl or begins so, else text.

    Raises `InvalidInput` with the number of the line.
    """
    if isinstance(stream, io.BufferedReader):
        beginning = stream.peek(LOOK_BYTES)
    else:
        beginning = stream.read(LOOK_BYTES)
        stream.seek(0)
    is_jsonl = name.lower().endswith(".jsonl") or BEGINS_AS_OBJECT.match(beginning)
    return (read_jsonl if is_jsonl else read_text)(stream, name)
