"""Rows of a Parquet file, where pyarrow is installed."""

import importlib
from collections.abc import Iterator
from typing import IO, Any

from tasks.errors import InvalidInput
from tasks.files.read.answers.formats import Record

ROWS_AT_ONCE = 256
MAX_GROUP_BYTES = 2**30


def parquet_records(stream: IO[bytes], name: str) -> Iterator[tuple[int, Record]]:
    """Rows by their number (from 1). Raises `InvalidInput`, also where pyarrow is missing."""
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        problem = f"{name} is a Parquet file, which needs pyarrow: install it, or save the file as JSON lines."
        raise InvalidInput(problem, "file") from None
    try:
        yield from enumerate(_rows(parquet.ParquetFile(stream), name), 1)
    except (arrow.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(f"{name} cannot be read as Parquet: {first}. Write it again.", "file") from None


def _rows(file: Any, name: str) -> Iterator[Record]:
    for group in range(file.metadata.num_row_groups):
        if file.metadata.row_group(group).total_byte_size > MAX_GROUP_BYTES:
            raise InvalidInput(f"{name} has a row group of more than {MAX_GROUP_BYTES} bytes; split it.", "file")
    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
        yield from batch.to_pylist()
