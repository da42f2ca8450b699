"""Output of a batch of OpenAI's interface: a line a request, by the custom_id that its owner gave it."""

from collections.abc import Iterator

from tasks.files.read.answers.content import id_of, name_of, object_of, objects_of, text_of
from tasks.files.read.answers.formats import Record, RecordFormat
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer

OK = 200
AGAIN = "Send the request again in another batch."


def _fits(record: Record) -> bool:
    response = record.get("response")
    return "custom_id" in record and (isinstance(response, dict) or (response is None and "error" in record))


def _answers(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
    response = object_of(record.get("response"))
    if record.get("error") or response.get("status_code", OK) != OK:
        told = object_of(record.get("error") or object_of(response.get("body")).get("error")).get("message")
        problems.add(line, f"The request failed: {told or response.get('status_code') or 'no reason is given'}.", AGAIN)
        return
    body = object_of(response.get("body"))
    model = name_of(body.get("model"))
    custom_id = id_of(record["custom_id"])
    texts = [_text(choice) for choice in objects_of(body.get("choices"))]
    if not texts or None in texts:
        problems.add(line, "The response has a choice without text, or none.", AGAIN)
    for sample, text in enumerate(texts):
        if text is not None:
            yield NewAnswer(text, custom_id, sample=sample, model=model, line=line)


def _text(choice: Record) -> str | None:
    """Of a chat completion, or of a completion."""
    return text_of(object_of(choice["message"]).get("content")) if "message" in choice else text_of(choice.get("text"))


OPENAI_BATCH = RecordFormat("output of an OpenAI batch", _fits, _answers)
