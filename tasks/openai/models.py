"""The models that OpenAI's interface may be asked for."""

from tasks.errors import NotFound
from tasks.registry import Registry

ALL = "all"  # of a batch's line: every model of the registry


class ModelNotFound(NotFound):
    """The registry has no such model."""

    code = "model_not_found"


def check_model(name: str, registry: Registry) -> None:
    """Raises `ModelNotFound` with the names that exist."""
    if name in registry.models:
        return
    hint = " 'all' is for batches." if name == ALL else ""
    raise ModelNotFound(f"There is no model {name!r}; there are {', '.join(registry.names)}.{hint}", "model")
