"""CSV as Excel reads it: UTF-8 with a byte order mark, one value a column, no cell that would be a formula."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tasks.files.write.fields import COMPLETION_COLUMNS, PROMPT_COLUMNS, completion_fields, phase_fields, prompt_fields
from tasks.files.write.source import Source
from tasks.ledger.records import Completion
from tasks.ledger.results import Result

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
FORMULA_STARTS = "=+-@\t\r"
NUMBER = re.compile(r"-\d{1,15}(\.\d{1,15})?")
ABOUT = ("finish_reason", "error", "origin", "output_tokens", "service_seconds")


def write_csv(source: Source) -> Iterator[bytes]:
    """A row a completion, with all of its prompt and its scores."""
    metrics = source.metrics()
    yield BYTE_ORDER_MARK + _lines([[*PROMPT_COLUMNS, *COMPLETION_COLUMNS, *(f"score {name}" for name in metrics)]])
    for page in source.pages():
        rows = []
        for result in page:
            asked = _cells(prompt_fields(result.prompt).values())
            for row, scores in zip(result.completions, result.scores, strict=True):
                rows.append([*asked, *_cells(completion_fields(row).values()), *map(scores.get, metrics)])
        yield _lines(rows)


def write_wide_csv(source: Source) -> Iterator[bytes]:
    """A row a prompt (and sample), a column a model: answers side by side, and behind them how each came about."""
    about = [f"{name} ({model})" for name in ABOUT for model in source.models]
    yield BYTE_ORDER_MARK + _lines([_cells([*PROMPT_COLUMNS, "sample", *source.models, *about])])
    for page in source.pages():
        yield _lines([row for result in page for row in _beside(result, source.models)])


def _beside(result: Result, models: tuple[str, ...]) -> Iterator[list[Any]]:
    by_place = {(row.model, row.sample): row for row in result.completions}
    asked = list(prompt_fields(result.prompt).values())
    for sample in sorted({row.sample for row in result.completions} or {0}):
        rows = [by_place.get((model, sample)) for model in models]
        about = [_about(row) for row in rows]
        answers = [None if row is None else row.text for row in rows]
        yield _cells([*asked, sample, *answers, *(each.get(name) for name in ABOUT for each in about)])


def _about(row: Completion | None) -> dict[str, Any]:
    if row is None:
        return {}
    shown = {"finish_reason": row.finish_reason.value, "error": row.error, "origin": row.origin.value}
    return shown | {"output_tokens": row.output_tokens} | phase_fields(row)


def _lines(rows: Iterable[list[Any]]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()


def _cells(values: Iterable[Any]) -> list[Any]:
    """Values as cells: a text that a spreadsheet would compute gets an apostrophe before it, a number stays one."""
    return [_guarded(value) if type(value) is str and value[:1] in FORMULA_STARTS else value for value in values]


def _guarded(text: str) -> str:
    return text if not text or NUMBER.fullmatch(text) else f"'{text}"
