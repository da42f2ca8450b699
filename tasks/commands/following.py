"""A run that goes on, watched to its end, and what came of it."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Any

import click

from tasks.commands.http import Api, run_path
from tasks.commands.words import span
from tasks.errors import Unavailable

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0  # with a server that is being restarted
PAGE = 1000
PAGES = 5  # of each model's completions: latency and failures are told of these
TENTHS = 10
REASONS = 5
ENDED = ("done", "cancelled")
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


class Bar:
    """How far a run is: a bar on a terminal, a line for each tenth elsewhere."""

    def __init__(self, total: int):
        self._total, self._tenth, self._started, self._begun = total, -1, time.monotonic(), -1
        terminal = sys.stderr.isatty()
        self._bar = (
            click.progressbar(length=total, show_eta=False, show_pos=True, file=sys.stderr) if terminal else None
        )

    def __enter__(self) -> "Bar":
        if self._bar:
            self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.__exit__(kind, error, at)

    def show(self, ended: int, estimate: Mapping[str, Any] | None) -> None:
        """``estimate`` is that of the time left, None where there is none."""
        self._begun = ended if self._begun < 0 else self._begun
        rate = (ended - self._begun) / max(time.monotonic() - self._started, 1e-3)
        known = estimate is not None and estimate["low"] is not None and ended < self._total
        left = f", {span(estimate['low'], estimate['high'])} left" if estimate and known else ""
        if self._bar:
            self._bar.label = f"{rate:.1f}/s{left}"
            self._bar.update(ended - self._bar.pos)
        elif (tenth := TENTHS * ended // max(self._total, 1)) > self._tenth:
            self._tenth = tenth
            click.echo(f"{ended} of {self._total} completions, {rate:.1f}/s{left}", err=True)


@dataclass
class Column:
    """What is told of one model of a run, of at most `PAGES` pages of its completions."""

    seen: int = 0
    cached: int = 0
    ttft: list[float] = field(default_factory=list)
    tpot: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def take(self, completion: Mapping[str, Any]) -> None:
        self.seen += 1
        self.cached += completion.get("origin") == "cached"
        if completion["finish_reason"] in ("error", "deadline"):
            self.failures[completion["error"] or completion["finish_reason"]] += 1
        elif completion.get("origin", "computed") == "computed":
            phases = completion["phases"]
            for name, values in (("ttft", self.ttft), ("tpot", self.tpot), ("characters_per_second", self.rate)):
                if phases[name] is not None:
                    values.append(phases[name])


def follow(api: Api, run_id: str) -> dict[str, Any]:
    """Show how far a run is until it has ended; returns what it has become. Interrupted, it says how to go on."""
    try:
        return _until_ended(api, run_id)
    except KeyboardInterrupt:
        click.echo(f"\nrun {run_id} goes on: './touchstone follow {run_id}' shows it, 'cancel' ends it.", err=True)
        sys.exit(EXIT_INTERRUPTED)


def tell_outcome(api: Api, run: Mapping[str, Any]) -> None:
    """Show what came of a run, model by model: counts, latency, and failures by their reason."""
    click.echo(
        f"{'model':24} {'done':>8} {'failed':>8} {'cancelled':>10} {'cached':>8} {'TTFT':>9} {'TPOT':>9} {'chars/s':>8}"
    )
    columns = {model["name"]: _column(api, run["id"], model["name"]) for model in run["models"]}
    for model in run["models"]:
        counts, column = model["counts"], columns[model["name"]]
        whole = column.seen >= counts["total"] - counts["pending"]
        cached = f"{column.cached}{'' if whole else '+'}"
        latency = f"{_ms(column.ttft):>9} {_ms(column.tpot):>9} {_middle(column.rate):>8}"
        numbers = f"{counts['done']:8} {counts['failed']:8} {counts['cancelled']:10} {cached:>8}"
        click.echo(f"{model['name']:24} {numbers} {latency}")
    if any(column.seen >= PAGE * PAGES for column in columns.values()):
        click.echo(f"latency, cached and failures are those of the first {PAGE * PAGES} completions of a model")
    for name, column in columns.items():
        for reason, number in column.failures.most_common(REASONS):
            click.echo(f"{name}: {number} failed: {reason}", err=True)
        if (more := len(column.failures) - REASONS) > 0:
            click.echo(f"{name}: {more} more kinds of failure", err=True)


def exit_code(run: Mapping[str, Any]) -> int:
    """0 where every completion is done, else `EXIT_SOME_FAILED`."""
    return 0 if run["counts"]["done"] == run["counts"]["total"] else EXIT_SOME_FAILED


def _until_ended(api: Api, run_id: str) -> dict[str, Any]:
    state = _state(api, run_id)
    told: set[tuple[str, str]] = set()
    with Bar(state["counts"]["total"]) as bar:
        while True:
            bar.show(state["counts"]["total"] - state["counts"]["pending"], state.get("estimate"))
            _say_what_blocks(state, told)
            if state["state"] in ENDED:
                return state
            time.sleep(POLL_SECONDS)
            state = _state(api, run_id)


def _state(api: Api, run_id: str) -> dict[str, Any]:
    """A run as it is; a server that is away is asked again for a while, as the run does not depend on it."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            state: dict[str, Any] = api.get(run_path(run_id))
            return state
        except Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(POLL_SECONDS)


def _say_what_blocks(state: Mapping[str, Any], told: set[tuple[str, str]]) -> None:
    """Say once of each model why it cannot go on; ``told`` holds what has been said."""
    for model in state["models"]:
        wait = model["waits"]
        if wait and wait["blocked"] and (reason := (model["name"], wait["message"])) not in told:
            told.add(reason)
            click.echo(f"\n{model['name']} waits: {wait['message']} The run's page lets it fail.", err=True)


def _column(api: Api, run_id: str, model: str) -> Column:
    column, after = Column(), None
    for _ in range(PAGES):
        page = api.get(run_path(run_id, "completions"), model=model, limit=PAGE, after=after)
        for completion in page["completions"]:
            column.take(completion)
        after = page["next"]
        if after is None:
            break
    return column


def _ms(seconds: Iterable[float]) -> str:
    values = list(seconds)
    return f"{1000 * median(values):.0f} ms" if values else "-"


def _middle(values: Iterable[float]) -> str:
    numbers = list(values)
    return f"{median(numbers):.0f}" if numbers else "-"
