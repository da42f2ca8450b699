"""The effective settings of a run, as few as tell its models apart."""

from dataclasses import dataclass, field
from typing import Any

from tasks.ledger.records import Run
from web import views


@dataclass(frozen=True)
class Chips:
    """Settings by name: those that all models of a run share, and those in which a model differs from another.

    What is a model's own way, and so unknown here, is left out.
    """

    shared: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)


def chips_of(run: Run) -> Chips:
    """The chips of a run; without those of a model's entry for a run of an older version, which did not keep it."""
    found = {name: views.settings(run, name) for name in run.computed}
    known = {name: settings.model_dump(mode="json") for name, settings in found.items() if settings}
    if len(known) < len(found) or not known:
        return Chips(shared=dict(run.sampling))
    first = next(iter(known.values()))
    shared = {key: value for key, value in first.items() if all(other[key] == value for other in known.values())}
    own = {
        name: {key: value for key, value in settings.items() if key not in shared and _is_set(value)}
        for name, settings in known.items()
    }
    return Chips({key: value for key, value in shared.items() if _is_set(value)}, own)


def _is_set(value: Any) -> bool:
    return value is not None and value != []
