"""Logs of inspect: ``.eval``, a zip file with a member a sample, and ``.json``, one document."""

from collections.abc import Iterator
from typing import IO, Any

from tasks.errors import InvalidInput
from tasks.files.read.answers.archive import Archive
from tasks.files.read.answers.content import asked, id_of, name_of, object_of, objects_of, text_of
from tasks.files.read.answers.formats import Record, RecordFormat
from tasks.files.read.answers.json_records import parsed
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer

HEADERS = ("header.json", "_journal/start.json")  # the second where the evaluation has not ended
AGAIN = "Run the sample again, or leave it out."


def read_inspect_archive(stream: IO[bytes], name: str, problems: Problems) -> Iterator[NewAnswer]:
    """The answers of an ``.eval`` file; their lines count its samples from 1. Raises `InvalidInput`."""
    archive = Archive(stream, name)
    header = next((one for one in HEADERS if one in archive.members), None)
    if header is None:
        problem = "is a zip file, but no log of inspect; hand in what it holds, a table of Excel saved as CSV"
        raise InvalidInput(f"{name} {problem}.", "file")
    model = name_of(object_of(_record(archive, header).get("eval")).get("model"))
    samples = [one for one in archive.members if one.startswith("samples/") and one.endswith(".json")]
    for line, member in enumerate(samples, 1):
        yield from _answer(_record(archive, member), line, model, problems)


def _record(archive: Archive, member: str) -> Record:
    try:
        return object_of(parsed(archive.read(member)))
    except InvalidInput as error:
        told = error.message if error.message.startswith(archive.name) else f"{archive.name}: {member} {error.message}"
        raise InvalidInput(told, "file") from None


def _fits(record: Record) -> bool:
    return {"eval", "samples"} <= record.keys() and isinstance(record["eval"], dict)


def _answers(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
    """The whole log is one record; lines count its samples."""
    model = name_of(record["eval"].get("model"))
    for number, sample in enumerate(objects_of(record["samples"]), line):
        yield from _answer(sample, number, model, problems)


def _answer(sample: Record, line: int, model: str | None, problems: Problems) -> Iterator[NewAnswer]:
    """Epochs, counted from 1 there, are samples here."""
    choice = next(objects_of(object_of(sample.get("output")).get("choices")), {})
    text = text_of(object_of(choice.get("message")).get("content"))
    if sample.get("error") or text is None:
        problems.add(line, f"Sample {id_of(sample.get('id'))} failed or has no text.", AGAIN)
        return
    epoch: Any = sample.get("epoch")
    number = max(epoch - 1, 0) if isinstance(epoch, int) else 0
    yield NewAnswer(text, id_of(sample.get("id")), asked(sample.get("input")), sample=number, model=model, line=line)


INSPECT = RecordFormat("a log of inspect", _fits, _answers)
