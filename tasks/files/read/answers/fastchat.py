"""Model answers of FastChat (MT-bench) and of arena-hard's first version: turns of a question, in choices."""

from collections.abc import Iterator
from typing import Any

from tasks.files.read.answers.content import id_of, name_of, object_of, objects_of, text_of
from tasks.files.read.answers.formats import Record, RecordFormat
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer

FAILED = "$ERROR$"  # what stands for an answer that no server gave


def _fits(record: Record) -> bool:
    choices = record.get("choices")
    return "question_id" in record and isinstance(choices, list) and all("turns" in one for one in objects_of(choices))


def _answers(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
    """Choices are samples; turn k answers the k-th prompt that follows the question's first."""
    model = name_of(record.get("model_id"))
    custom_id = id_of(record["question_id"])
    for sample, choice in enumerate(objects_of(record["choices"])):
        turns = choice["turns"]
        for turn, said in enumerate(turns if isinstance(turns, list) else ()):
            text = _text(said)
            if text is None or text == FAILED:
                reason = f"Turn {turn + 1} of choice {sample + 1} failed or has no text."
                problems.add(line, reason, "Ask the model again.")
                break
            yield NewAnswer(text, custom_id, turn=turn, sample=sample, model=model, line=line)


def _text(said: Any) -> str | None:
    return text_of(object_of(said).get("content")) if isinstance(said, dict) else text_of(said)


FASTCHAT = RecordFormat("model answers of FastChat", _fits, _answers)
