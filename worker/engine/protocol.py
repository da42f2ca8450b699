"""What the rest of the worker knows of an engine: requests go in, events come out, step by step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tasks.sampling import Sampling
from tasks.states import FinishReason


@dataclass(frozen=True)
class Request:
    """One completion to generate. A lower ``priority`` goes first.

    ``prompt`` is the text after templating, or its token ids, to which the engine then adds nothing.

    ``deadline`` is a point of `time.monotonic` after which the request ends with what it has. ``logprobs`` asks for
    the log-probability of each token. One that nobody watches needs no ``streams``: then only its result is told.
    """

    id: str
    prompt: str | tuple[int, ...]
    sampling: Sampling
    priority: int = 0
    deadline: float | None = None
    logprobs: bool = False
    streams: bool = True


@dataclass(frozen=True)
class Delta:
    """Text that was added to a completion: never half a character."""

    request_id: str
    text: str


@dataclass(frozen=True)
class Result:
    """A finished completion. Times are points of `time.monotonic` in seconds; None where it never got there.

    ``text`` is the whole completion, equal to its deltas joined. ``batch_size`` is the largest number of requests
    that shared a step with this one. ``error`` is set if and only if ``finish_reason`` is ERROR or DEADLINE.
    ``logprobs`` are the natural logarithms of the output tokens' probabilities under the model alone, if asked for.
    """

    request_id: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    output_tokens: int
    admitted: float | None
    first_token: float | None
    last_token: float | None
    batch_size: int
    error: str | None = None
    logprobs: tuple[float, ...] | None = None


Event = Delta | Result


class Engine(Protocol):
    """A model on a device. Only `cancel` may be called from another thread than `step`."""

    slots: int
    progress: int  # grows with every token, so that a watchdog can tell working from stuck

    @property
    def active(self) -> int:
        """Requests that are waiting or running."""

    def add(self, request: Request) -> None:
        """Take a request in. It ends in exactly one `Result`, also when it is impossible (then with an error)."""

    def cancel(self, request_id: str) -> None:
        """End a request at the next step and keep its partial text; unknown ids are ignored."""

    def step(self, emit: Callable[[Event], None]) -> None:
        """Do one unit of work and emit what came of it, in order."""
