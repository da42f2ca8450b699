"""Decoding settings: what a person may ask for, and the complete set that an engine works with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

from pydantic import BeforeValidator

from tasks.schema import Characters, Range, Said, Schema, validated, whole

GREEDY_BELOW = 1e-6  # temperatures under it would overflow, and mean the most likely token anyway
MAX_STOPS = 8
MAX_STOP_CHARACTERS = 64


BOUNDS = {
    "max_new_tokens": whole(1, 4096),
    "temperature": Range(0.0, 5.0),
    "top_k": whole(0, 100_000),
    "top_p": Range(0.01, 1.0),
    "repetition_penalty": Range(0.5, 5.0),
    "no_repeat_ngram": whole(0, 64),
    "seed": whole(0, 2**53 - 1),
}


def stops(value: Any) -> Any:
    """One text or a list of them, as a tuple. Raises `ValueError` for anything else."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or len(texts) > MAX_STOPS:
        raise ValueError(value)
    return tuple(texts)


StopString = Annotated[str, Characters(MAX_STOP_CHARACTERS, 1)]
STOPS = Said(f"must be a list of at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} characters")


class SamplingSettings(Schema):
    """A partial set of decoding settings; what is left out is the model's own choice."""

    max_new_tokens: Annotated[int, BOUNDS["max_new_tokens"]] | None = None
    temperature: Annotated[float, BOUNDS["temperature"]] | None = None
    top_k: Annotated[int, BOUNDS["top_k"]] | None = None
    top_p: Annotated[float, BOUNDS["top_p"]] | None = None
    repetition_penalty: Annotated[float, BOUNDS["repetition_penalty"]] | None = None
    no_repeat_ngram: Annotated[int, BOUNDS["no_repeat_ngram"]] | None = None
    seed: Annotated[int, BOUNDS["seed"]] | None = None
    stop: Annotated[tuple[StopString, ...], BeforeValidator(stops), STOPS] | None = None


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


def check_settings(given: Any, where: str = "sampling") -> dict[str, Any]:
    """Validate a partial set of decoding settings and return it in canonical types.

    Raises `InvalidInput` for an unknown name, a wrong type or a value out of range; its ``field`` is
    ``<where>.<name>``.
    """
    settings = validated(SamplingSettings, given, where).model_dump(exclude_none=True)
    if settings.get("temperature", 1.0) < GREEDY_BELOW:
        settings["temperature"] = 0.0
    return settings


def merge(*settings: Mapping[str, Any]) -> Sampling:
    """Complete `Sampling` from partial sets, the later ones winning."""
    merged: dict[str, Any] = {}
    for partial in settings:
        merged |= check_settings(partial)
    return Sampling(**merged)
