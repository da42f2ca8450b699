"""Counts tokens where a server does not: with a tokenizer that the entry names, without torch."""

from pathlib import Path

from tokenizers import Tokenizer

from tasks.errors import ModelError
from tasks.registry import OpenAIModel


class TokenCounter:
    """Counts with a ``tokenizer.json``; special tokens are not added."""

    def __init__(self, file: Path, name: str):
        """Raises `ModelError`."""
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a plain Exception
            said = str(error).splitlines()[0]
            raise ModelError(f"{name}: the tokenizer {file} cannot be read: {said}. Correct tokenizer.") from error

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def token_counter(entry: OpenAIModel) -> TokenCounter | None:
    """Of the entry's ``tokenizer``, a ``tokenizer.json`` or a folder that has one. Raises `ModelError`."""
    place = entry.tokenizer_location
    if place is None:
        return None
    return TokenCounter(place / "tokenizer.json" if place.is_dir() else place, entry.name)
