"""Details of lighteval, a row a document: ``doc`` and ``model_response``, or ``full_prompt`` and ``predictions``."""

from collections.abc import Iterator

from tasks.files.read.answers.content import asked, object_of
from tasks.files.read.answers.formats import Record, RecordFormat
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer

GENERATE = "Take over tasks that generate text; those that compare likelihoods have no answer to show."


def _fits(record: Record) -> bool:
    return {"doc", "model_response"} <= record.keys() or {"full_prompt", "predictions"} <= record.keys()


def _answers(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
    if "model_response" in record:
        prompt = asked(object_of(record["doc"]).get("query"))
        given = object_of(record["model_response"]).get("text")
    else:
        prompt = asked(record["full_prompt"])
        given = record["predictions"]
    texts = [text for text in given if isinstance(text, str)] if isinstance(given, list) else []
    if not texts:
        problems.add(line, "The row has no prediction that is a text.", GENERATE)
    for sample, text in enumerate(texts):
        yield NewAnswer(text, prompt=prompt, sample=sample, line=line)


LIGHTEVAL = RecordFormat("details of lighteval", _fits, _answers)
