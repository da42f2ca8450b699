"""Parquet files, such as data sets of Hugging Face, where pyarrow is installed."""

import importlib
import importlib.util
from typing import Any

from tasks.errors import InvalidInput
from tasks.files.read.reading import Problem
from tasks.files.read.record import NUL, NUL_REMEDY, Notes, Records, has_nul
from tasks.files.read.source import Source

BATCH = 256  # records
MAX_GROUP = 2**30  # bytes of a row group as it is unpacked


def read_parquet(source: Source, notes: Notes) -> Records:
    """The records of a file; the number of a line is that of the record, from 1."""
    if importlib.util.find_spec("pyarrow") is None:
        problem = "is a Parquet file, which needs pyarrow; run `pip install pyarrow`, or send the data as JSONL."
        raise InvalidInput(f"{source.name} {problem}", "file")
    # It is optional, and takes a third of a second that no other file should cost.
    parquet: Any = importlib.import_module("pyarrow.parquet")
    broken = importlib.import_module("pyarrow").ArrowException
    line = 0
    try:
        file = parquet.ParquetFile(source.stream)
        groups = (file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups))
        if max(groups, default=0) > MAX_GROUP:
            raise InvalidInput(f"{source.name} has a row group over 1 GiB; write it with smaller ones.", "file")
        for batch in file.iter_batches(BATCH):
            for record in batch.to_pylist():
                line += 1
                yield line, Problem(line, NUL, NUL_REMEDY) if has_nul(record) else record
    except (broken, OSError, ValueError) as error:
        raise InvalidInput(f"{source.name} is a damaged Parquet file ({error}); write it again.", "file") from None
