"""Fixtures: a server that behaves as it is told, and backends over it that do not wait long before they ask again."""

import os
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tasks.conversation import Conversation, Message, Role
from tasks.registry import OpenAIModel
from tasks.sampling import Sampling
from tasks.states import LoadStage
from tests.backends.told_server import MODEL, ToldServer, serving
from tests.smollm2 import smollm2_gguf as smollm2_gguf
from worker.backends.openai import attempts, inspection, open_backend
from worker.backends.openai.backend import OpenAIBackend
from worker.backends.protocol import Answer, Event, Failure, Generation, Increment

KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(inspection, "TRY_AGAIN_SECONDS", 0.05)
    monkeypatch.setitem(os.environ, "TOLD_API_KEY", KEY)


@pytest.fixture
def told() -> Iterator[ToldServer]:
    with serving() as server:
        yield server


@dataclass
class Opened:
    """A backend, what it reported while it opened, and one way to ask it."""

    backend: OpenAIBackend
    entry: OpenAIModel
    stages: list[LoadStage] = field(default_factory=list)
    events: "queue.SimpleQueue[Event]" = field(default_factory=queue.SimpleQueue)

    def submit(self, said: str | Conversation = "Hi", id: str = "a", **options: Any) -> None:
        sampling = Sampling(**options.pop("sampling", {"temperature": 0.0}))
        conversation = (Message(Role.USER, said),) if isinstance(said, str) else said
        entry = options.pop("entry", self.entry)
        self.backend.submit(Generation(id, conversation, entry, sampling, **options), self.events.put)

    def until_end(self, seconds: float = 20.0) -> tuple[Answer | Failure, list[Increment]]:
        """The next end, and the increments before it."""
        increments: list[Increment] = []
        while isinstance(event := self.events.get(timeout=seconds), Increment):
            increments.append(event)
        return event, increments

    def ask(self, said: str | Conversation = "Hi", **options: Any) -> tuple[Answer, list[Increment]]:
        self.submit(said, **options)
        end, increments = self.until_end()
        assert isinstance(end, Answer), end
        return end, increments


Opener = Callable[..., Opened]


def joined(increments: list[Increment]) -> tuple[str, str]:
    """What somebody sees who watches."""
    text = thinking = ""
    for one in increments:
        text, thinking = ("", "") if one.restarts else (text, thinking)
        text, thinking = text + one.text, thinking + one.thinking
    return text, thinking


@pytest.fixture
def opener() -> Iterator[Opener]:
    """Opens backends of an entry's keys, and closes them at the end."""
    opened: list[Opened] = []

    def open_one(**keys: Any) -> Opened:
        entry = OpenAIModel(name=MODEL, backend="openai", **keys)
        stages: list[LoadStage] = []
        backend = open_backend(entry, lambda stage, share=None: stages.append(stage))
        opened.append(Opened(backend, entry, stages))
        return opened[-1]

    yield open_one
    for one in opened:
        one.backend.close()


@pytest.fixture
def model(told: ToldServer, opener: Opener) -> Opened:
    return opener(base_url=told.url, timeout=1.0)
