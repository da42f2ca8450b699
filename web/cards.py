"""What there is to say of each model: its entry, the state of its workers, and what waits for it."""

from collections.abc import Sequence
from typing import Literal

from tasks.ledger.records import Worker
from tasks.registry import LocalModel, ModelEntry, OpenAIModel
from tasks.service import Service
from tasks.states import LoadStage
from web.schema.answers import Model, Texts
from web.schema.states import ModelState, ShownWorkerState
from web.views import worker_state


def all_models(service: Service) -> list[Model]:
    """The models of the registry in its order, then those that have left it and are still waited for."""
    workers: dict[str, list[Worker]] = {}
    for row in service.ledger.workers.all():
        workers.setdefault(row.model, []).append(row)
    waiting = service.ledger.runs.waiting()
    entries = service.registry.models
    return [
        *(card(name, entry, workers.get(name, ()), waiting.get(name, 0)) for name, entry in entries.items()),
        *(card(name, None, workers.get(name, ()), number) for name, number in waiting.items() if name not in entries),
    ]


def card(name: str, entry: ModelEntry | None, workers: Sequence[Worker], waiting: int) -> Model:
    """One model; ``workers`` are its own, newest first, ``entry`` is None where it has left the registry."""
    states = [worker_state(row) for row in workers]
    state, shown = _state_of(states, workers)
    return Model(
        name=name,
        label=_texts(entry, "label", name),
        description=_texts(entry, "description", ""),
        state=state if entry else ModelState.REMOVED,
        reason=shown.error if shown and state is ModelState.FAILED else None,
        stage=LoadStage(shown.stage) if shown and shown.stage and state is ModelState.LOADING else None,
        share=shown.stage_share if shown and state is ModelState.LOADING else None,
        backend=entry.backend if entry else None,
        remote=isinstance(entry, OpenAIModel) and entry.base_url is not None,
        device=shown.device if shown else entry.device if entry else None,
        dtype=(shown.dtype if shown else "") or (entry.dtype if isinstance(entry, LocalModel) else None),
        slots=entry.slots if entry else None,
        memory=_memory(shown) if shown else None,
        load_seconds=shown.load_seconds if shown else None,
        facts=dict(shown.facts or {}) if shown else {},
        decoding=dict(entry.decoding) if entry else {},
        template=entry.template if entry else None,
        system=entry.system if entry else None,
        thinking=entry.thinking if entry else None,
        ready_workers=states.count(ShownWorkerState.READY),
        waiting=waiting,
    )


def _memory(worker: Worker) -> int | None:
    """What its heartbeat tells, else what loading took."""
    loaded = (worker.facts or {}).get("memory")
    return worker.rss or (loaded if isinstance(loaded, int) else None)


def _state_of(states: Sequence[ShownWorkerState], workers: Sequence[Worker]) -> tuple[ModelState, Worker | None]:
    """The best that the workers say, and the newest worker that says it; else what became of the newest."""
    for best in (ShownWorkerState.READY, ShownWorkerState.LOADING):
        if best in states:
            return ModelState(best), workers[states.index(best)]
    if not workers or states[0] is ShownWorkerState.STOPPED:
        return ModelState.NO_WORKER, None
    return ModelState(states[0]), workers[0]


def _texts(entry: ModelEntry | None, kind: Literal["label", "description"], otherwise: str) -> Texts:
    if entry is None:
        return Texts(zh=otherwise, en=otherwise)
    return Texts(zh=entry.text(kind, "zh"), en=entry.text(kind, "en"))
