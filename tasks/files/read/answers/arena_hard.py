"""Model answers of arena-hard: a conversation a question, the answers among its messages."""

from collections.abc import Iterator
from typing import Any

from tasks.files.read.answers.content import id_of, name_of, objects_of, text_of
from tasks.files.read.answers.formats import Record, RecordFormat
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer


def _fits(record: Record) -> bool:
    return {"uid", "messages", "model"} <= record.keys()


def _answers(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
    model = name_of(record["model"])
    custom_id = id_of(record["uid"])
    messages = list(objects_of(record["messages"]))
    asked = next((text_of(one.get("content")) for one in messages if one.get("role") == "user"), None)
    given = [_text(one.get("content")) for one in messages if one.get("role") == "assistant"]
    if not given or None in given:
        problems.add(line, "The conversation lacks an answer.", "Ask the model again, or leave the line out.")
        return
    for turn, text in enumerate(given):
        yield NewAnswer(text or "", custom_id, asked, turn=turn, model=model, line=line)


def _text(content: Any) -> str | None:
    """Answers stand beside what was thought before them, as ``{"answer": …}``, or alone."""
    return text_of(content.get("answer")) if isinstance(content, dict) else text_of(content)


ARENA_HARD = RecordFormat("model answers of arena-hard", _fits, _answers)
