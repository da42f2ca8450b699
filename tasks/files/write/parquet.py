"""Parquet, where pyarrow is installed: the columns of the CSV file with their types, the run in the metadata."""

import importlib
import importlib.util
from collections.abc import Iterator
from itertools import chain
from typing import Any

import orjson

from tasks.errors import InvalidInput
from tasks.files.write.fields import COMPLETION_COLUMNS, PROMPT_COLUMNS, completion_fields, prompt_fields
from tasks.files.write.pipe import Pipe
from tasks.files.write.source import Source

METADATA_KEY = "touchstone"
PAGES_A_GROUP = 10


def check_pyarrow() -> None:
    """Raises `InvalidInput` where pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise InvalidInput("Parquet needs pyarrow: pip install pyarrow, or export as jsonl or csv.", "format")


def write_parquet(source: Source) -> Iterator[bytes]:
    """A row a completion. The key `METADATA_KEY` of the schema's metadata holds what JSON Lines has as first record."""
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    types = {int: arrow.int64(), float: arrow.float64(), str: arrow.string(), bool: arrow.bool_()}
    metrics = source.metrics()
    columns = PROMPT_COLUMNS | COMPLETION_COLUMNS | {f"score {metric}": float for metric in metrics}
    metadata = {METADATA_KEY: orjson.dumps(source.header())}
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()], metadata)
    pipe = Pipe()
    with parquet.ParquetWriter(pipe, schema, compression="zstd") as writer:
        for rows in _groups(source, metrics):
            values = zip(*rows, strict=True)
            arrays = [arrow.array(column, field.type) for column, field in zip(values, schema, strict=True)]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            yield pipe.take()
    yield pipe.take()


def _groups(source: Source, metrics: list[str]) -> Iterator[list[list[Any]]]:
    """Rows of some pages at a time."""
    group: list[list[Any]] = []
    for number, page in enumerate(chain(source.pages(), [[]]), 1):
        for result in page:
            asked = list(prompt_fields(result.prompt).values())
            for row, scores in zip(result.completions, result.scores, strict=True):
                group.append([*asked, *completion_fields(row).values(), *map(scores.get, metrics)])
        if group and (number % PAGES_A_GROUP == 0 or not page):
            yield group
            group = []
