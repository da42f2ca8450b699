"""Any table or records with a column of answers, and one of ids or of prompts."""

from collections.abc import Iterator, Sequence
from typing import Any

from tasks.errors import InvalidInput
from tasks.files.read.answers.content import asked, id_of, name_of
from tasks.files.read.answers.evalscope import is_data_set
from tasks.files.read.answers.formats import Record, RecordFormat
from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer

# The first that is there is taken: where a file has an output and an answer, the answer is the reference.
ANSWERS = (
    *("model_output", "output", "response", "completion", "prediction", "model_answer"),
    *("模型回答", "回答", "输出", "answer", "答案"),
)
IDS = ("custom_id", "id", "question_id", "uid", "prompt_id", "编号", "序号")
PROMPTS = ("prompt", "instruction", "question", "query", "input", "messages", "提示词", "问题", "指令")
MODELS = ("model", "model_id", "generator", "模型")
SAMPLES = ("sample", "样本")


def by_columns(first: Record, name: str) -> RecordFormat:
    """How to take answers from records like ``first``. Raises `InvalidInput` where its columns do not tell."""
    columns = {str(column).strip().lower(): column for column in first}
    if is_data_set(set(columns)):
        problem = "holds questions with references, as a data set of EvalScope does: its response is no model's answer"
        raise InvalidInput(f"{name} {problem}. If it is one, call that column output.", "file")
    answer, custom_id, prompt = (_first(names, columns) for names in (ANSWERS, IDS, PROMPTS))
    if answer is None or (custom_id is None and prompt is None):
        missing = f"answers ({', '.join(ANSWERS)})" if answer is None else "ids or prompts (custom_id, prompt, …)"
        problem = f"has no column of {missing}; it has {', '.join(list(columns)[:20])}"
        raise InvalidInput(f"{name} {problem}. Rename the one that holds them.", "file")
    model, sample = _first(MODELS, columns), _first(SAMPLES, columns)

    def answers(record: Record, line: int, problems: Problems) -> Iterator[NewAnswer]:
        text = _text(record.get(answer))
        if text is None:
            problems.add(line, f"The column {answer} has no text here.", "Fill it in, or leave the line out.")
            return
        yield NewAnswer(
            text,
            custom_id=id_of(record.get(custom_id)) if custom_id else None,
            prompt=asked(record.get(prompt)) or None if prompt else None,
            sample=_number(record.get(sample)) if sample else 0,
            model=name_of(record.get(model)) if model else None,
            line=line,
        )

    return RecordFormat(f"answers in the column {answer}", lambda record: answer in record, answers)


def _first(names: Sequence[str], columns: dict[str, str]) -> str | None:
    return next((columns[name] for name in names if name in columns), None)


def _text(value: Any) -> str | None:
    """A table's empty cell is None: an answer may be empty only where the file can say so."""
    if isinstance(value, bool | int | float):
        return str(value)
    return value if isinstance(value, str) else None


def _number(value: Any) -> int:
    """The number of a sample, 0 where none is given."""
    digits = str(value).strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0
