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
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from tasks.sampling import Sampling
from tasks.states import FinishReason
from worker.bench.families import CONTEXT, FAMILIES, FIRST_CHARACTER, VOCABULARY, Family, character_tokenizer
from worker.device import device_name
from worker.engine import native
from worker.engine.choice import Choice, EngineKind, make_engine
from worker.engine.engine import ContinuousEngine
from worker.engine.protocol import Delta, Event, Request, Result
from worker.weights import open_weights

PROMPTS = 8
NEW_TOKENS = 24
SLOTS = 4
CANCELLED_AFTER = 3  # tokens
LEAST_DISTINCT = 10  # fewer different tokens would be right by chance too often
VARIED = 40
LEAST_GAP = 1e-4  # between the two best logits, in standard deviations: nearer ones may change places by rounding
TRIES = tuple((factor, seed) for seed in (0, 1) for factor in (4.0, 8.0, 2.0))
CUSTOM = "code that comes with a model"
PATHS = ("fast", "slow", "compatible", "refused", "fails")


@dataclass(frozen=True)
class Row:
    """What came of a family. ``right`` of ``tokens`` are those of generate, of which ``distinct`` are different.

    ``path`` is one of ``PATHS``; ``reason`` says why it is not fast.
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
    def answers(self) -> bool:
        return self.tokens > 0 and self.right == self.tokens and self.distinct >= LEAST_DISTINCT

    @property
    def verdict(self) -> str:
        if not self.tokens:
            return "–"
        weak = f"; too weak: {self.distinct} different tokens" if self.distinct < LEAST_DISTINCT else ""
        return f"{self.right} of {self.tokens}{weak}"


@dataclass(frozen=True)
class Reference:
    """What generate made of each prompt; ``undecided`` are steps whose two best tokens were nearly as good."""

    texts: tuple[str, ...]
    distinct: int
    undecided: int


def main(arguments: list[str]) -> int:
    """Check the families and print what was found; 1 if one made a wrong token."""
    options = parse(arguments)
    _be_quiet()
    names = options.only or [family.name for family in FAMILIES] + [CUSTOM]
    rows = []
    for family in FAMILIES:
        if family.name in names:
            rows.append(check(family))
            sys.stderr.write(f"{family.name}: {rows[-1].path}, {rows[-1].verdict} {rows[-1].reason}\n")
    if CUSTOM in names:
        rows.append(check_custom_code())
    if not options.json:
        sys.stdout.write(table(rows) + "\n\n")
    sys.stdout.write(json.dumps(summary(rows), ensure_ascii=False) + "\n")
    return int(any(row.right < row.tokens for row in rows))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench architectures", description=__doc__)
    names = [*(family.name for family in FAMILIES), CUSTOM]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    return parser.parse_args(arguments)


def check(family: Family) -> Row:
    """Compare one family's tokens with those of generate."""
    prompts = make_prompts(PROMPTS + 1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            expected = _save_varied(family, Path(folder), prompts)
            with _listening() as heard:
                choice = _choose(folder)
            right = _right_alone(choice, prompts, expected) + _right_together(choice, prompts, expected)
            path, reason = _path(choice, heard)
            captured = _captures(folder, prompts) if path == "fast" else False
        except Exception as error:
            # Whatever a family does, the others are checked.
            return Row(family.name, family.examples, "fails", f"{type(error).__name__}: {error}")
    tokens = 2 * PROMPTS * NEW_TOKENS
    return Row(family.name, family.examples, path, reason, captured, right, tokens, expected.distinct)


def check_custom_code() -> Row:
    """A model that brings its own code is refused before that code is run."""
    with tempfile.TemporaryDirectory() as folder:
        ran = Path(folder, "ran")
        config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        Path(folder, "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n", encoding="utf-8")
        try:
            open_weights(folder, local_files_only=True)
            reason = "it was loaded"
        except (ValueError, OSError) as error:
            reason = str(error).strip().replace(folder, "FOLDER").splitlines()[0]
        path = "fails" if ran.exists() else "refused"
    return Row(CUSTOM, "models that need trust_remote_code", path, reason)


def make_prompts(count: int) -> list[str]:
    """Texts of different lengths from 2 tokens on, the same at every call."""
    rng = random.Random(0)
    texts = [[rng.randrange(VOCABULARY) for _ in range(2 + 2 * at)] for at in range(count)]
    return ["".join(chr(FIRST_CHARACTER + token) for token in tokens) for tokens in texts]


def table(rows: Sequence[Row]) -> str:
    """As Markdown, the best paths first."""
    lines = ["| family | models such as | path | tokens right | why not fast |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: PATHS.index(row.path)):
        reason = row.reason.replace("|", "\\|")
        lines.append(f"| {row.family} | {row.examples} | {row.path} | {row.verdict} | {reason} |")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "what": "architectures",
        "answer": sum(row.answers for row in rows),
        "wrong": sum(row.right < row.tokens for row in rows),
        "weak": sum(0 < row.distinct < LEAST_DISTINCT for row in rows),
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


def _save_varied(family: Family, folder: Path, prompts: Sequence[str]) -> Reference:
    """Save the family's model with weights that make varied tokens, none of them by a hair."""
    found: list[tuple[int, float, int]] = []
    for factor, seed in TRIES:
        family.save(folder, seed, factor)
        reference = _generate(str(folder), prompts, family.cached)
        if reference.undecided == 0:
            if reference.distinct >= VARIED:
                return reference
            found.append((reference.distinct, factor, seed))
    if not found:
        raise ValueError("the two best tokens are nearly as good with all weights that were tried")
    _, factor, seed = max(found)
    family.save(folder, seed, factor)
    return _generate(str(folder), prompts, family.cached)


def _generate(folder: str, prompts: Sequence[str], cached: bool) -> Reference:
    tokenizer = character_tokenizer()
    texts = []
    seen: set[int] = set()
    undecided = 0
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        # A new one for each, as some remember the longest text that they have seen.
        out = _open(folder).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=cached,
            output_logits=True,
            return_dict_in_generate=True,
        )
        made = out.sequences[0, ids.shape[1] :].tolist()
        logits = torch.cat(out.logits).float()
        best = logits.topk(2).values
        undecided += int((best[:, 0] - best[:, 1] <= LEAST_GAP * logits.std(dim=1)).sum())
        undecided += int((~logits.isfinite()).any(dim=1).sum())
        seen |= set(made)
        texts.append(tokenizer.decode(made))
    return Reference(tuple(texts), len(seen), undecided)


def _open(folder: str, dtype: torch.dtype = torch.float32) -> Any:
    model = open_weights(folder, dtype=dtype, local_files_only=True).eval()
    # Configuration classes name an end of text that these vocabularies do not have.
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    return model


def _choose(folder: str, dtype: torch.dtype = torch.float32) -> Choice:
    return make_engine(
        _open(folder, dtype),
        character_tokenizer(),
        slots=SLOTS,
        max_context=CONTEXT,
        native=native.load(),
        reload=lambda: _open(folder, dtype),
    )


def _path(choice: Choice, heard: Sequence[str]) -> tuple[str, str]:
    """How an engine computes, and why not fast; ``heard`` is what the engine has logged about the model."""
    engine = choice.engine
    if not isinstance(engine, ContinuousEngine):
        again = "; every token reads its whole sequence" if engine.recomputes else ""
        return EngineKind.COMPATIBLE, f"{choice.reason}{again}"
    runner = engine._runner
    if runner._program == runner._call_model_with_cache:
        return "slow", heard[0].partition(" (")[0] if heard else ""
    return "fast", ""


def _captures(folder: str, prompts: Sequence[str]) -> bool | None:
    """Whether steps are captured in bfloat16, which has a kernel for all; None where this processor has none."""
    kernels = native.load()
    if kernels is None or not kernels.multiplies:
        return None
    choice = _choose(folder, torch.bfloat16)
    if not isinstance(choice.engine, ContinuousEngine):
        return False
    _run(choice, [_request(prompt) for prompt in prompts])
    captured = choice.engine._runner._tapes
    return captured is not None and captured._keeps


def _right_alone(choice: Choice, prompts: Sequence[str], expected: Reference) -> int:
    results = [_run(choice, [_request(prompt)])[prompt] for prompt in prompts[:PROMPTS]]
    return sum(_right(result, text) for result, text in zip(results, expected.texts, strict=False))


def _right_together(choice: Choice, prompts: Sequence[str], expected: Reference) -> int:
    """Tokens that are right while the last prompt is cancelled; none if that did not end with a part of its text."""
    *kept, leaving = prompts
    made = 0

    def on_event(event: Event) -> None:
        nonlocal made
        if isinstance(event, Delta) and event.request_id == leaving:
            made += len(event.text)
            if made >= CANCELLED_AFTER:
                choice.engine.cancel(leaving)

    results = _run(choice, [_request(leaving), *map(_request, kept)], on_event)
    gone = results[leaving]
    if gone.finish_reason is not FinishReason.CANCELLED or not expected.texts[-1].startswith(gone.text):
        return 0
    return sum(_right(results[prompt], text) for prompt, text in zip(kept, expected.texts, strict=False))


def _request(prompt: str) -> Request:
    return Request(prompt, prompt, Sampling(NEW_TOKENS, 0.0))


def _right(result: Result, expected: str) -> int:
    """Tokens before the first that is wrong. Raises `RuntimeError` for a request that failed."""
    if result.error is not None:
        raise RuntimeError(result.error)
    pairs = zip(result.text, expected, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(result.text), len(expected)))


def _run(
    choice: Choice, requests: Sequence[Request], on_event: Callable[[Event], None] = lambda event: None
) -> dict[str, Result]:
    results: dict[str, Result] = {}

    def emit(event: Event) -> None:
        on_event(event)
        if isinstance(event, Result):
            results[event.request_id] = event

    for request in requests:
        choice.engine.add(request)
    while choice.engine.active:
        choice.engine.step(emit)
    return results


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """What the engine logs about recording a model, without the model's name."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage().partition(" ")[2].splitlines()[0])

    engine = logging.getLogger("worker.engine.runner")
    listener = Listener()
    engine.addHandler(listener)
    engine.setLevel(logging.INFO)
    try:
        yield heard
    finally:
        engine.removeHandler(listener)


def _be_quiet() -> None:
    """What is found stands in the table."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    worker = logging.getLogger("worker")
    worker.addHandler(logging.NullHandler())
    worker.propagate = False
