"""Opening a file: what it is and how its bytes are characters, where a person did not say so."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from tasks.errors import InvalidInput
from tasks.files.read.detection import best_separator, binary_format, text_format
from tasks.files.read.reading import FileFormat, Reading
from tasks.files.read.source import LOOK_BYTES, Source, seekable, survey

BINARY = (FileFormat.XLSX, FileFormat.PARQUET)


@contextmanager
def opened(stream: IO[bytes], name: str, reading: Reading) -> Iterator[Source]:
    """The file, with what a person did not say of it guessed."""
    with seekable(stream) as file:
        format = binary_format(file, name)
        if format is not None:
            if reading.format not in (None, format):
                problem = f"{name} is {format.value} and cannot be read as {reading.format}; choose {format.value}."
                raise InvalidInput(problem, "format")
            yield Source(file, name, reading.model_copy(update={"format": format}), ("format",))
            return
        if reading.format in BINARY:
            raise InvalidInput(f"{name} is not {reading.format}, but text; choose another format.", "format")
        yield _text_source(file, name, reading)


def _text_source(file: IO[bytes], name: str, reading: Reading) -> Source:
    encoding, looked = survey(file, name, reading.encoding)
    file.seek(0)
    head = file.read(LOOK_BYTES).decode(looked.codec, "ignore").replace("\r\n", "\n").replace("\r", "\n")
    if not head.strip() and len(head) < LOOK_BYTES // 4:
        raise InvalidInput(f"{name} holds nothing but white space; choose another file.", "file")
    format = reading.format or text_format(head, name)
    guesses: dict[str, object] = {"encoding": encoding, "format": format}
    if format is FileFormat.CSV:
        guesses["separator"] = reading.separator or best_separator(head, name)
    guessed = tuple(field for field in guesses if getattr(reading, field) is None)
    filled = reading.model_copy(update=guesses)
    return Source(file, name, filled, guessed, looked.codec, looked.has_nul, looked.long_line)
