"""Test cases in a table: columns of two underscores say what they are, every other one is a variable."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from tasks.files.read.answers.csv_records import Row, csv_records
from tasks.files.read.promptfoo.assertions import refuse_elsewhere, written
from tasks.files.read.promptfoo.cases import Case, Untaken
from tasks.files.read.reading import Problem, Reading

CONFIG = re.compile(r"__config:__expected(\d*):threshold")
COMMA = re.compile(r"(?<!\\),")


def table_cases(stream: IO[bytes], name: str, reading: Reading) -> Iterator[Case | Problem]:
    """The cases of a table, or what is wrong with each. Raises `InvalidInput` where it is no table."""
    for line, row in csv_records(stream, name, reading.encoding, reading.separator):
        try:
            yield _case(line, row)
        except Untaken as error:
            yield Problem(line, error.reason, error.remedy)


def _case(line: int, row: Row) -> Case:
    variables = {column: cell or "" for column, cell in row.items() if not column.startswith("__")}
    refuse_elsewhere(list(variables.values()))
    return Case(
        line,
        variables,
        _checks(row),
        row.get("__description") or "",
        _metadata(row),
        row.get("__prefix") or "",
        row.get("__suffix") or "",
    )


def _checks(row: Row) -> tuple[Mapping[str, Any], ...]:
    """The assertions; with a threshold of the whole test, as one set that has it."""
    cells = [cell for column, cell in row.items() if column.startswith("__expected") and cell]
    checks = [written(cell) for cell in cells if cell.strip()]
    for column, cell in row.items():
        found = CONFIG.fullmatch(column)
        place = max(int(found[1] or 1) - 1, 0) if found else 0
        if found and cell and place < len(checks):
            checks[place]["threshold"] = number(cell, column)
    if metric := row.get("__metric"):
        checks = [{**check, "metric": metric} for check in checks]
    threshold = row.get("__threshold")
    return together(checks, number(threshold, "__threshold") if threshold else None)


def together(checks: Sequence[Mapping[str, Any]], threshold: float | None) -> tuple[Mapping[str, Any], ...]:
    """The checks, as one set where the test as a whole has a threshold."""
    if threshold is None or not checks:
        return tuple(checks)
    return ({"type": "assert-set", "assert": list(checks), "threshold": threshold},)


def number(value: Any, what: str) -> float:
    """Raises `Untaken` for what is no finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if abs(found) < float("inf"):
        return found
    raise Untaken(f"{what} is {value!r}, which is no number.", "Write a number such as 0.8.")


def _metadata(row: Row) -> dict[str, Any]:
    """By key; a key that ends with [] has several values, with commas between."""
    found: dict[str, Any] = {}
    for column, cell in row.items():
        key = column.removeprefix("__metadata:")
        if key == column or not cell:
            continue
        values = [part.replace("\\,", ",").strip() for part in COMMA.split(cell)]
        found[key.removesuffix("[]")] = values if key.endswith("[]") else cell
    return found
