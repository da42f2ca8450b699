"""The output file of an OpenAI batch: a line a completion."""

from collections.abc import Iterator

from tasks.files.write.batch_line import batch_line
from tasks.files.write.jsonl import line
from tasks.files.write.source import Source


def write_openai(source: Source) -> Iterator[bytes]:
    """A line for each prompt, model and sample; `custom_id` is the prompt's, or `prompt-` and its idx."""
    for page in source.pages():
        yield b"".join(
            line(batch_line(source.run, result.prompt, row)) for result in page for row in result.completions
        )
