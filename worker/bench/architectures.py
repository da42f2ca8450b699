"""Which families of models answer, and how: ``python -m worker.bench architectures [--only gpt2 mamba …]``.

A tiny model of each family is saved, loaded and run as a worker does it, in float32. Its greedy tokens must be those of
transformers' own generate: each prompt alone, then all of unequal length at once beside one that is cancelled. It
prints the table of docs/models.md; the last line is JSON.
"""

import argparse
import contextlib
import json
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from worker.backends.device import device_name
from worker.backends.weights import open_weights
from worker.bench.families import FAMILIES, Family
from worker.bench.greedy import (
    NEW_TOKENS,
    PROMPTS,
    make_prompts,
    open_engine,
    right_alone,
    right_together,
    run,
    save_varied,
)
from worker.engine import native
from worker.engine.choice import Choice, EngineKind
from worker.engine.engine import ContinuousEngine

LEAST_DISTINCT = 10  # fewer different tokens would be right by chance too often
CUSTOM = "own-code"
PATHS = ("fast", "slow", "compatible", "refused", "fails")


@dataclass(frozen=True)
class Row:
    """What came of a family. ``right`` of ``tokens`` are those of generate, of which ``distinct`` are different.

    ``path`` is one of ``PATHS``; ``reason`` says why it is not faster. ``captured`` tells whether steps are captured
    in bfloat16, the format that has a kernel for all; None where this processor has none.
    """

    family: str
    examples: str
    path: str
    reason: str = ""
    captured: bool | None = False
    right: int = 0
    tokens: int = 0
    distinct: int = 0

    @property
    def is_wrong(self) -> bool:
        return self.right < self.tokens

    @property
    def is_weak(self) -> bool:
        """Whether too few different tokens were made for the check to count."""
        return self.tokens > 0 and self.distinct < LEAST_DISTINCT

    @property
    def answers(self) -> bool:
        return self.tokens > 0 and not self.is_wrong and not self.is_weak

    @property
    def verdict(self) -> str:
        if not self.tokens:
            return "–"
        weak = f"; does not count: {self.distinct} different tokens" if self.is_weak else ""
        return f"{self.right} of {self.tokens}{weak}"


def main(arguments: list[str]) -> int:
    """Check the families and print what was found; 1 if one made a wrong token."""
    options = parse(arguments)
    _be_quiet()
    rows = []
    for family in FAMILIES:
        if not options.only or family.name in options.only:
            rows.append(check(family))
            sys.stderr.write(f"{family.name}: {rows[-1].path}, {rows[-1].verdict}\n")
    if not options.only or CUSTOM in options.only:
        rows.append(check_own_code())
    if not options.json:
        sys.stdout.write(table(rows) + "\n\n")
    sys.stdout.write(json.dumps(summary(rows), ensure_ascii=False) + "\n")
    return int(any(row.is_wrong for row in rows))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench architectures", description=__doc__)
    names = [*(family.name for family in FAMILIES), CUSTOM]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    return parser.parse_args(arguments)


def check(family: Family) -> Row:
    """Compare one family's tokens with those of generate."""
    prompts = make_prompts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            expected = save_varied(family, folder, prompts)
            with _listening() as heard:
                choice = open_engine(folder, torch.float32)
            right = right_alone(choice, prompts, expected) + right_together(choice, prompts, expected)
            path, reason = _path(choice, heard)
            captured = _captures(folder, prompts) if path == "fast" else False
            # A narrow format's rounding must not hide what the engine cannot do.
            if choice.kind is EngineKind.COMPATIBLE and open_engine(folder, torch.bfloat16).kind is not choice.kind:
                raise RuntimeError("in bfloat16 it is taken for one that the engine runs")
        except Exception as error:
            # Whatever a family does, the others are checked.
            return Row(family.name, family.examples, "fails", f"{type(error).__name__}: {error}")
    if path == "fast" and captured is False:
        reason = "steps are not captured: not every operator has a kernel"
    tokens = 2 * PROMPTS * NEW_TOKENS
    return Row(family.name, family.examples, path, reason, captured, right, tokens, expected.distinct)


def check_own_code() -> Row:
    """A model that brings its own code is refused before that code is run."""
    with tempfile.TemporaryDirectory() as folder:
        ran = Path(folder, "ran")
        config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        Path(folder, "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n", encoding="utf-8")
        try:
            open_weights(folder, local_files_only=True)
            path, reason = "fails", "it was loaded"
        except (ValueError, OSError) as error:
            first = str(error).strip().replace(folder, "FOLDER").splitlines()[0]
            path, reason = ("fails", "its code was run") if ran.exists() else ("refused", first)
    return Row(CUSTOM, "models that need trust_remote_code", path, reason)


def table(rows: Sequence[Row]) -> str:
    """As Markdown, the best paths first."""
    lines = ["| family | models such as | path | tokens right | why not faster |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (PATHS.index(row.path), row.captured is False)):
        reason = row.reason.replace("|", "\\|")
        lines.append(f"| {row.family} | {row.examples} | {row.path} | {row.verdict} | {reason} |")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "what": "architectures",
        "answer": sum(row.answers for row in rows),
        "wrong": sum(row.is_wrong for row in rows),
        "weak": sum(row.is_weak for row in rows),
        "paths": {path: sum(row.path == path for row in rows) for path in PATHS},
        "families": [asdict(row) | {"answers": row.answers} for row in rows],
        "environment": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "transformers": version("transformers"),
            "processor": device_name(torch.device("cpu")),
            "cores": os.cpu_count(),
            "native": native.load() is not None,
        },
    }


def _path(choice: Choice, heard: Sequence[str]) -> tuple[str, str]:
    """How an engine computes, and why not faster; ``heard`` is what the engine has logged about the model."""
    engine = choice.engine
    if not isinstance(engine, ContinuousEngine):
        again = "; every token reads its whole sequence" if engine.recomputes else ""
        return EngineKind.COMPATIBLE, f"{choice.reason}{again}"
    runner = engine._runner
    if runner._program == runner._call_model_with_cache:
        return "slow", heard[0].partition(" (")[0] if heard else ""
    return "fast", ""


def _captures(folder: Path, prompts: Sequence[str]) -> bool | None:
    kernels = native.load()
    if kernels is None or not kernels.multiplies:
        return None
    choice = open_engine(folder, torch.bfloat16)
    if not isinstance(choice.engine, ContinuousEngine):
        return False
    run(choice, prompts)
    captured = choice.engine._runner._captured
    return captured is not None and captured._keeps


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """What the engine logs about recording a model, without the model's name."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage().partition(" ")[2].splitlines()[0])

    engine = logging.getLogger("worker.engine.runner")
    listener = Listener()
    level = engine.level
    engine.addHandler(listener)
    engine.setLevel(logging.INFO)
    try:
        yield heard
    finally:
        engine.removeHandler(listener)
        engine.setLevel(level)


def _be_quiet() -> None:
    """What is found stands in the table."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    worker = logging.getLogger("worker")
    worker.addHandler(logging.NullHandler())
    worker.propagate = False
