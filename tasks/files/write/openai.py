"""The output file of an OpenAI batch: a line a completion."""

from collections.abc import Iterator

from tasks.files.write.jsonl import line
from tasks.files.write.source import Source
from tasks.openai.bodies import Endpoint
from tasks.openai.results import result


def write_openai(source: Source) -> Iterator[bytes]:
    """A line for each prompt, model and sample; `custom_id` is the prompt's, or `prompt-` and its idx."""
    for page in source.pages():
        yield b"".join(
            line(result(Endpoint.CHAT, found.prompt.custom_id or f"prompt-{found.prompt.idx}", [row]))
            for found in page
            for row in found.completions
        )
