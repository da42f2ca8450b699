"""A claimed chunk in a worker: which completions are open, which wait for the turn before, which are to be written."""

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tasks.conversation import Conversation, Message, Role
from tasks.ledger.records import Answered, Claim, Completion, Rendered
from tasks.ledger.stored_answers import StoredAnswer
from tasks.queue.live import LiveEvent
from tasks.states import FinishReason, Outcome
from worker.backends.protocol import Answer, Event, Generation

Key = tuple[int, int]  # idx and sample

NO_PREDECESSOR = "The turn before this one has no answer: {}"


@dataclass(frozen=True)
class Told:
    """A chunk of this process has come to the answer that others of its chunks await, by its key."""

    name: str
    answer: StoredAnswer


@dataclass
class ChunkWork:
    """What is open (``generations``, by id), what waits for a turn of the chunk, what is finished but not written.

    ``awaited`` is computed by somebody else just now. By names of answers (`Generation.answer_key`): ``keyed`` says
    what this chunk computes, ``known`` what it has answered, and ``settled`` is what the ledger still believes to be
    computed here. ``copied`` counts stored answers, ``asked`` is when they were last asked for.

    ``rendered`` are prompts as the model saw them that are not written either, ``live`` is text that is not shown yet,
    ``restarts`` how often the backend began a completion anew. Points of time are those of `time.monotonic`.
    """

    claim: Claim
    events: "queue.SimpleQueue[Event | Told]" = field(default_factory=queue.SimpleQueue)
    generations: dict[str, Key] = field(default_factory=dict)
    waiting: dict[Key, list[Key]] = field(default_factory=dict)
    awaited: dict[Key, Generation] = field(default_factory=dict)
    keyed: dict[Key, str] = field(default_factory=dict)
    known: dict[str, StoredAnswer] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    answers: dict[Key, Answered] = field(default_factory=dict)
    finished: list[Completion] = field(default_factory=list)
    rendered: dict[Key, Rendered] = field(default_factory=dict)
    live: dict[Key, tuple[str, str]] = field(default_factory=dict)
    restarts: dict[Key, int] = field(default_factory=dict)
    renewed: float = field(default_factory=time.monotonic)
    looked: float = field(default_factory=time.monotonic)
    asked: float = 0.0
    copied: int = 0
    progress: int = -1
    ended: bool = False

    def __post_init__(self) -> None:
        self.answers.update(self.claim.answers)

    @property
    def open(self) -> int:
        """Completions that are still to come."""
        return len(self.generations) + len(self.awaited) + sum(map(len, self.waiting.values()))

    def ready(self, keys: Sequence[Key]) -> list[Key]:
        """Those of ``keys`` whose turn before is answered, or that have none; the others wait for it."""
        now = []
        for idx, sample in keys:
            follows = self.claim.prompts[idx].follows
            if follows is None or (follows, sample) in self.answers:
                now.append((idx, sample))
            else:
                self.waiting.setdefault((follows, sample), []).append((idx, sample))
        return now

    def conversation(self, key: Key) -> Conversation:
        """The whole conversation that a completion answers."""
        idx, sample = key
        prompt = self.claim.prompts[idx]
        if prompt.follows is None:
            return prompt.messages
        before = (prompt.follows, sample)
        said = Message(Role.ASSISTANT, self.answers[before].text)
        return (*self.conversation(before), said, *prompt.messages)

    def impossible(self, key: Key) -> Answer | None:
        """What becomes at once of a completion whose turn before has failed or was cancelled; None of any other."""
        idx, sample = key
        follows = self.claim.prompts[idx].follows
        before = self.answers[follows, sample] if follows is not None else None
        if before is None or before.finish_reason.outcome is Outcome.DONE:
            return None
        if before.finish_reason is FinishReason.CANCELLED:
            return Answer("", "", FinishReason.CANCELLED)
        reason = before.error or ""
        error = reason if reason.startswith(NO_PREDECESSOR.format("")) else NO_PREDECESSOR.format(reason)
        return Answer("", "", FinishReason.ERROR, error=error)

    def settle(self, key: Key, answer: Answer) -> list[Key]:
        """Note how a completion ended; returns those that waited for it."""
        idx, sample = key
        self.answers[key] = Answered(answer.text, answer.finish_reason, answer.error)
        if answer.rendered is not None:
            shared = 0 if self.claim.prompts[idx].follows is None else sample
            self.rendered.setdefault((idx, shared), answer.rendered)
        return self.waiting.pop(key, [])

    def show(self, key: Key, text: str, thinking: str, restarts: bool) -> None:
        """Take in text for those who watch."""
        if restarts:
            self.restarts[key] = self.restarts.get(key, 0) + 1
            self.live.pop(key, None)
        shown = self.live.get(key, ("", ""))
        self.live[key] = (shown[0] + text, shown[1] + thinking)

    def take_live(self) -> list[LiveEvent]:
        """The text that is not shown yet, as events."""
        events = [self.event(key, *texts) for key, texts in self.live.items()]
        self.live.clear()
        return events

    def event(self, key: Key, text: str = "", thinking: str = "") -> LiveEvent:
        """What those who watch are told of a completion; without text: it is in the ledger."""
        # Not the number of the attempt, which restarts could reach, and which a retry or a release sets back.
        beginning = round(self.claim.claimed * 1e6)
        return LiveEvent("", self.claim.model, *key, beginning + self.restarts.get(key, 0), text, thinking)

    def take_awaited(self, which: Callable[[Generation], bool] = lambda one: True) -> dict[Key, Generation]:
        """Those of the awaited completions, which then are not awaited any more."""
        taken = {key: one for key, one in self.awaited.items() if which(one)}
        for key in taken:
            del self.awaited[key]
        return taken
