"""Decoding settings: what a person may ask for, and the complete set that an engine works with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tasks.errors import InvalidInput

GREEDY_BELOW = 1e-6  # temperatures under it would overflow, and mean the most likely token anyway
MAX_STOPS = 8
MAX_STOP_CHARACTERS = 64


@dataclass(frozen=True)
class Bounds:
    """Closed range of a numeric setting."""

    low: float
    high: float
    integer: bool


BOUNDS = {
    "max_new_tokens": Bounds(1, 4096, True),
    "temperature": Bounds(0.0, 5.0, False),
    "top_k": Bounds(0, 100_000, True),
    "top_p": Bounds(0.01, 1.0, False),
    "repetition_penalty": Bounds(0.5, 5.0, False),
    "no_repeat_ngram": Bounds(0, 64, True),
    "seed": Bounds(0, 2**53 - 1, True),
}


@dataclass(frozen=True)
class Sampling:
    """Complete decoding settings of one request, applied in transformers' order.

    ``temperature`` 0 is greedy, and so is any below 0.000001; ``top_k`` 0, ``top_p`` 1, ``repetition_penalty`` 1 and
    ``no_repeat_ngram`` 0 are off. ``stop`` strings end a completion and are not part of it. Random numbers depend on
    ``seed`` and the position alone.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"stop": list(self.stop)}

    def for_completion(self, idx: int, sample: int) -> "Sampling":
        """The same settings with the seed of one completion of a run, which no other of the run has."""
        return replace(self, seed=(self.seed * 1_000_003 + idx * 1009 + sample) % 2**53)


NAMES = tuple(field.name for field in fields(Sampling))


def check_settings(given: Mapping[str, Any], where: str = "sampling") -> dict[str, Any]:
    """Validate a partial set of decoding settings and return it in canonical types.

    Raises `InvalidInput` for an unknown name, a wrong type or a value out of range; its ``field`` is
    ``<where>.<name>``.
    """
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{where} must be an object of decoding settings: {', '.join(NAMES)}.", where)
    return {name: _check(name, value, f"{where}.{name}") for name, value in given.items()}


def merge(*settings: Mapping[str, Any]) -> Sampling:
    """Complete `Sampling` from partial sets, the later ones winning."""
    merged: dict[str, Any] = {}
    for partial in settings:
        merged |= check_settings(partial)
    return Sampling(**merged)


def _check(name: str, value: Any, field: str) -> Any:
    if name == "stop":
        return _check_stop(value, field)
    if name not in BOUNDS:
        raise InvalidInput(f"{field} is not a decoding setting; there are {', '.join(NAMES)}.", field)
    bounds = BOUNDS[name]
    kind = "a whole number" if bounds.integer else "a number"
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not isinstance(value, int | float) or (bounds.integer and not whole):
        raise InvalidInput(f"{field} must be {kind} from {bounds.low:g} to {bounds.high:g}.", field)
    if not bounds.low <= value <= bounds.high:  # false for NaN too
        raise InvalidInput(f"{field} must be {kind} from {bounds.low:g} to {bounds.high:g}.", field)
    if name == "temperature" and value < GREEDY_BELOW:
        return 0.0
    return int(value) if bounds.integer else float(value)


def _check_stop(value: Any, field: str) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise InvalidInput(f"{field} must be a list of non-empty strings.", field)
    if len(texts) > MAX_STOPS or any(len(text) > MAX_STOP_CHARACTERS for text in texts):
        raise InvalidInput(f"{field} takes at most {MAX_STOPS} strings of {MAX_STOP_CHARACTERS} characters.", field)
    return tuple(texts)
