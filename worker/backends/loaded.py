"""A loaded model, as the rest of the worker knows it: nothing here needs torch."""

from dataclasses import dataclass

from tasks.ledger.records import Environment
from worker.engine.protocol import Engine


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to generate. ``load_seconds`` is how long it took from the start."""

    engine: Engine
    environment: Environment
    device: str
    dtype: str
    load_seconds: float
