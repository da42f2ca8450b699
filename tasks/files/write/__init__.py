"""Results of a run as files for others, written as streams: a format a file."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import orjson

from tasks.errors import Conflict, InvalidInput
from tasks.files.write.archive import zipped
from tasks.files.write.csv import write_csv, write_wide_csv
from tasks.files.write.every_eval_ever import every_eval_ever_files
from tasks.files.write.inspect_log import write_inspect
from tasks.files.write.jsonl import write_jsonl
from tasks.files.write.llm_comparator import write_llm_comparator
from tasks.files.write.lm_eval import write_lm_eval
from tasks.files.write.mt_bench import write_mt_bench
from tasks.files.write.naming import FILE_ENDING, safe_name
from tasks.files.write.openai import write_openai
from tasks.files.write.parquet import check_pyarrow, write_parquet
from tasks.files.write.promptfoo import write_promptfoo
from tasks.files.write.prompts import write_prompts
from tasks.files.write.source import Source
from tasks.ledger import Ledger
from tasks.ledger.records import Counts, Run

__all__ = ["Export", "ExportFormat", "export"]

CSV, JSON, JSONL, ZIP = "text/csv; charset=utf-8", "application/json", "application/jsonl", "application/zip"
PARQUET = "application/vnd.apache.parquet"


class ExportFormat(StrEnum):
    """A format that results of a run are written in."""

    CSV = "csv"
    CSV_WIDE = "csv-wide"  # a column a model
    JSONL = "jsonl"
    PARQUET = "parquet"
    PROMPTS = "prompts"  # the prompts alone, to be read again
    OPENAI = "openai"  # the output of a batch
    LLM_COMPARATOR = "llm-comparator"
    MT_BENCH = "mt-bench"
    PROMPTFOO = "promptfoo"
    EVERY_EVAL_EVER = "every-eval-ever"
    INSPECT = "inspect"
    LM_EVAL = "lm-eval"
    ZIP = "zip"  # csv, csv-wide, jsonl, prompts and the run itself


@dataclass(frozen=True)
class Export:
    """A file that is written as it is read: its ``name`` on any system, its ``media`` type, its bytes in ``pieces``."""

    name: str
    media: str
    pieces: Iterator[bytes]


Writer = Callable[[Source], Iterator[bytes]]
Files = Iterator[tuple[str, Iterable[bytes]]]


@dataclass(frozen=True)
class Format:
    """How a format is written. ``one_model``: a file holds one model; files of several come as an archive."""

    suffix: str
    media: str
    write: Writer
    one_model: bool = False


def _every_eval_ever(source: Source) -> Iterator[bytes]:
    return zipped(every_eval_ever_files(source))


def _everything(source: Source) -> Iterator[bytes]:
    parts = (ExportFormat.CSV, ExportFormat.CSV_WIDE, ExportFormat.JSONL, ExportFormat.PROMPTS)
    files: Files = ((_name(source.run, FORMATS[part].suffix), FORMATS[part].write(source)) for part in parts)
    about = orjson.dumps(source.header(), option=orjson.OPT_INDENT_2)
    return zipped((*files, ("run.json", [about])))


def _each_model(write: Writer, suffix: str, source: Source) -> Iterator[bytes]:
    """An archive with a file a model."""

    def files() -> Files:
        names: set[str] = set()
        for number, model in enumerate(source.models):
            name = safe_name(model, f"model-{number}")
            names.add(name := name if name not in names else f"{name}-{number}")
            yield f"{name}{suffix}", write(source.only(model))

    return zipped(files())


FORMATS = {
    ExportFormat.CSV: Format(".csv", CSV, write_csv),
    ExportFormat.CSV_WIDE: Format(".wide.csv", CSV, write_wide_csv),
    ExportFormat.JSONL: Format(".jsonl", JSONL, write_jsonl),
    ExportFormat.PARQUET: Format(".parquet", PARQUET, write_parquet),
    ExportFormat.PROMPTS: Format(".prompts.jsonl", JSONL, write_prompts),
    ExportFormat.OPENAI: Format(".openai.jsonl", JSONL, write_openai),
    ExportFormat.LLM_COMPARATOR: Format(".llm-comparator.json", JSON, write_llm_comparator),
    ExportFormat.MT_BENCH: Format(".mt-bench.jsonl", JSONL, write_mt_bench, one_model=True),
    ExportFormat.PROMPTFOO: Format(".promptfoo.json", JSON, write_promptfoo),
    ExportFormat.EVERY_EVAL_EVER: Format(".every-eval-ever.zip", ZIP, _every_eval_ever),
    ExportFormat.INSPECT: Format(".inspect.json", JSON, write_inspect, one_model=True),
    ExportFormat.LM_EVAL: Format(".lm-eval.jsonl", JSONL, write_lm_eval, one_model=True),
    ExportFormat.ZIP: Format(".zip", ZIP, _everything),
}


def export(ledger: Ledger, run_id: str, format: ExportFormat, models: Sequence[str] | None = None) -> Export:
    """Results of a run as a file; ``models`` are those of the run that it holds, all by default.

    Raises, before the first piece, `NotFound` for a run that is not there, `InvalidInput` for models that are not in
    it, for other than two models where a format compares a pair, and for Parquet without pyarrow, and `Conflict` where
    nothing of the models is done yet. While pieces are read: `NotFound` where the run is deleted, `Unavailable`.
    """
    run = ledger.runs.get(run_id)
    source = Source(ledger, run, _chosen(run, models))
    if format is ExportFormat.LLM_COMPARATOR and len(source.models) != 2:
        raise InvalidInput(f"{format} compares two models; name two of {', '.join(run.models)}.", "models")
    if format is ExportFormat.PARQUET:
        check_pyarrow()
    if format is not ExportFormat.PROMPTS and not _counts(run, source.models).ended:
        raise Conflict("Nothing of this run is done yet; export it when the first answers are there.")
    how = FORMATS[format]
    if how.one_model and len(source.models) > 1:
        name = _name(run, how.suffix.rsplit(".", 1)[0] + ".zip")
        return Export(name, ZIP, _each_model(how.write, how.suffix, source))
    return Export(_name(run, how.suffix), how.media, how.write(source))


def _chosen(run: Run, models: Sequence[str] | None) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(run.models if models is None else models))
    if unknown := [name for name in chosen if name not in run.models]:
        there = ", ".join(run.models)
        raise InvalidInput(f"{', '.join(map(repr, unknown))} is not in this run; it has {there}.", "models")
    if not chosen:
        raise InvalidInput(f"Name at least one model; the run has {', '.join(run.models)}.", "models")
    return chosen


def _counts(run: Run, models: Iterable[str]) -> Counts:
    return functools.reduce(Counts.__add__, (run.models[name] for name in models))


def _name(run: Run, suffix: str) -> str:
    return safe_name(FILE_ENDING.sub("", run.title), f"run-{run.id}") + suffix
