"""The registry's models as OpenAI's interface lists them."""

from typing import Any

from flask.typing import ResponseReturnValue

from tasks.openai.models import check_model
from tasks.registry import ModelEntry
from web.host import service
from web.openai.blueprint import blueprint

OWNER = "touchstone"


@blueprint.get("/models")
def list_models() -> ResponseReturnValue:
    return {"object": "list", "data": [_object(entry) for entry in service().registry.models.values()]}


@blueprint.get("/models/<model>")
def retrieve_model(model: str) -> ResponseReturnValue:
    check_model(model, service().registry)
    return _object(service().registry.get(model))


def _object(entry: ModelEntry) -> dict[str, Any]:
    """The registry does not know when a model was made: ``created`` is 0."""
    return {"id": entry.name, "object": "model", "created": 0, "owned_by": OWNER}
