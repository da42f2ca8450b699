"""Predictions and reviews of EvalScope, a line a sample of a benchmark.

Data sets of EvalScope are something else: there ``response`` is the reference, not an answer of a model.
"""

from collections.abc import Iterator

from tasks.files.read.answers.content import asked, id_of, name_of, object_of, objects_of, text_of
from tasks.files.read.answers.formats import Record, RecordFormat
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer

AGAIN = "Run the sample again, or leave it out."
DATA_SET_COLUMNS = {"query", "response", "system", "history", "images"}


def is_data_set(columns: set[str]) -> bool:
    """Whether these are the columns of a data set of questions and references."""
    return {"query", "response"} <= columns <= DATA_SET_COLUMNS


def _is_prediction(record: Record) -> bool:
    return {"index", "model_output", "messages"} <= record.keys()


def _predictions(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
    output = object_of(record["model_output"])
    choice = next(objects_of(output.get("choices")), {})
    text = text_of(object_of(choice.get("message")).get("content"))
    if output.get("error") or text is None:
        problems.add(line, "The prediction failed or has no text.", AGAIN)
        return
    prompt = asked(record["messages"])
    custom_id = id_of(record["index"]) if prompt is None else None
    model = name_of(record.get("model")) or name_of(output.get("model"))
    yield NewAnswer(text, custom_id, prompt, model=model, line=line)


def _is_review(record: Record) -> bool:
    return {"index", "sample_score"} <= record.keys()


def _reviews(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
    text = text_of(object_of(object_of(record["sample_score"]).get("score")).get("prediction"))
    if text is None:
        problems.add(line, "The review holds no prediction.", "Hand in the file of the same name below predictions/.")
        return
    prompt = asked(record.get("input")) or None
    custom_id = id_of(record["index"]) if prompt is None else None
    yield NewAnswer(text, custom_id, prompt, line=line)


PREDICTIONS = RecordFormat("predictions of EvalScope", _is_prediction, _predictions)
REVIEWS = RecordFormat("reviews of EvalScope", _is_review, _reviews)
