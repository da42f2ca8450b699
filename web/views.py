"""Records of the ledger as JSON values."""

from dataclasses import asdict
from typing import Any

from tasks.ledger.records import Completion, Worker
from tasks.measures.answers import completion_phases
from tasks.registry.entry import LANGUAGES
from tasks.service import Service
from tasks.states import WorkerState


def completion(row: Completion) -> dict[str, Any]:
    """A completion with its phases."""
    return asdict(row) | {"phases": asdict(completion_phases(row))}


def worker(row: Worker) -> dict[str, Any]:
    return asdict(row)


def models(service: Service) -> list[dict[str, Any]]:
    """The registry, each model with how many workers are ready for it and what waits."""
    ready: dict[str, int] = {}
    for row in service.ledger.workers.all():
        ready[row.model] = ready.get(row.model, 0) + (row.alive and row.state is WorkerState.READY)
    waiting = service.ledger.runs.waiting()
    return [
        {
            "name": spec.name,
            "label": {language: spec.text("label", language) for language in LANGUAGES},
            "description": {language: spec.text("description", language) for language in LANGUAGES},
            "backend": spec.backend,
            "device": spec.device,
            "slots": spec.slots,
            "decoding": dict(spec.decoding),
            "ready_workers": ready.get(spec.name, 0),
            "waiting": waiting.get(spec.name, 0),
        }
        for spec in service.registry.models.values()
    ]
