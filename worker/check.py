"""Load a model and put one prompt to it: ``python -m worker.check --model NAME [--prompt TEXT]``."""

import argparse
import logging
import queue
import sys
import time

from tasks.conversation import Message, Role
from tasks.errors import ModelError, TouchstoneError, Unavailable
from tasks.host.supervisor import EXIT_CANNOT_START, EXIT_TRY_AGAIN
from tasks.registry import ModelEntry, Registry
from tasks.sampling import Sampling
from tasks.settings import Settings
from tasks.states import LoadStage
from worker.__main__ import open_backend
from worker.backends.protocol import Answer, Backend, Event, Failure, Generation

EXIT_NO_ANSWER = 1
SECONDS = 300.0  # for one answer
MOST_TOKENS = 64


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.check", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", default="What is the capital of France?")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    try:
        entry = Registry.load(Settings.from_environment().models).get(options.model)
        started = time.monotonic()
        backend = open_backend(entry, _Stages())
        try:
            _show_backend(backend, time.monotonic() - started)
            return _show_answer(ask(entry, backend, options.prompt))
        finally:
            backend.close()
    except TouchstoneError as error:
        sys.stderr.write(f"touchstone: {error.message}\n")
        return EXIT_TRY_AGAIN if isinstance(error, Unavailable) else EXIT_CANNOT_START


def ask(entry: ModelEntry, backend: Backend, prompt: str) -> Answer:
    """The answer to one prompt. Raises `ModelError` where the backend fails or takes longer than `SECONDS`."""
    settings = {**entry.decoding, "max_new_tokens": min(entry.decoding.get("max_new_tokens", MOST_TOKENS), MOST_TOKENS)}
    deadline = time.monotonic() + min(SECONDS, entry.deadline)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    conversation = (Message(Role.USER, prompt),)
    backend.submit(Generation("check", conversation, entry, Sampling(**settings), deadline=deadline), events.put)
    while True:
        try:
            event = events.get(timeout=max(deadline + 1 - time.monotonic(), 0.0))
        except queue.Empty:
            raise ModelError(f"{entry.name}: no answer came within {SECONDS:.0f} s.") from None
        if isinstance(event, Failure):
            raise ModelError(f"{entry.name}: {event.error}")
        if isinstance(event, Answer):
            return event


class _Stages:
    """Implements `worker.backends.protocol.Report` on the terminal."""

    def __init__(self) -> None:
        self._shown: tuple[LoadStage, int] | None = None

    def __call__(self, stage: LoadStage, share: float | None = None) -> None:
        tenths = (stage, int((share or 0.0) * 10))
        if tenths != self._shown:
            self._shown = tenths
            sys.stderr.write(f"{stage.replace('_', ' ')}{'' if share is None else f' {share:.0%}'}\n")


def _show_backend(backend: Backend, seconds: float) -> None:
    made = backend.description
    rows = {"loaded in": f"{seconds:.1f} s", "device": made.device, "dtype": made.dtype, "slots": made.slots}
    for label, value in {**rows, **made.facts}.items():
        if value is not None and value != "":
            sys.stdout.write(f"{label.replace('_', ' '):16} {_human(label, value)}\n")


def _human(label: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and label in ("weights_bytes", "memory_needed", "memory"):
        return f"{value / 1e9:.2f} GB"
    return str(value)


def _show_answer(answer: Answer) -> int:
    if answer.first_token is not None and answer.admitted is not None:
        sys.stdout.write(f"{'first token':16} {answer.first_token - answer.admitted:.2f} s\n")
    if (speed := tokens_per_second(answer)) is not None:
        sys.stdout.write(f"{'speed':16} {speed:.1f} tokens/s\n")
    sys.stdout.write(f"{'ended by':16} {answer.finish_reason}\n")
    if answer.error is not None:
        sys.stderr.write(f"touchstone: it answers with an error: {answer.error}\n")
        return EXIT_NO_ANSWER
    if not answer.text.strip():
        sys.stderr.write("touchstone: it answers nothing; try another template in its entry, or another --prompt.\n")
        return EXIT_NO_ANSWER
    sys.stdout.write(f"{'answer':16} {answer.text.strip()}\n")
    return 0


def tokens_per_second(answer: Answer) -> float | None:
    """Tokens a second after the first; None where there is only one, or no number of them."""
    first, last, tokens = answer.first_token, answer.last_token, answer.output_tokens
    if first is None or last is None or tokens is None or tokens < 2 or last <= first:
        return None
    return (tokens - 1) / (last - first)


if __name__ == "__main__":
    sys.exit(main())
