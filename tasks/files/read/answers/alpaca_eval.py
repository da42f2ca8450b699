"""Outputs of AlpacaEval: an instruction, what came out, and which model was the generator."""

from collections.abc import Iterator

from tasks.files.read.answers.content import name_of, text_of
from tasks.files.read.answers.formats import Record, RecordFormat
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer


def _fits(record: Record) -> bool:
    return {"instruction", "output", "generator"} <= record.keys()


def _answers(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
    text, instruction = text_of(record["output"]), text_of(record["instruction"])
    if text is None or instruction is None:
        problems.add(line, "The record lacks its output or its instruction.", "Add it, or leave the record out.")
        return
    given = text_of(record.get("input"))
    prompt = f"{instruction}\n\n{given}" if given else instruction
    yield NewAnswer(text, prompt=prompt, model=name_of(record["generator"]), line=line)


ALPACA_EVAL = RecordFormat("outputs of AlpacaEval", _fits, _answers)
