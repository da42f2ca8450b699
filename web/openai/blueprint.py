"""The blueprint that the views of OpenAI's interface attach themselves to."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint

from tasks.openai.batches import Batches
from web.host import service

PREFIX = "/v1"

blueprint = Blueprint("openai", __name__, url_prefix=PREFIX)


def batches() -> Batches:
    """The batches of this app's service."""
    return Batches(service(), service().uploads)


def listed(found: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of objects; ``found`` has one more than ``limit`` where another page follows."""
    data = found[:limit]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, "has_more": len(found) > limit, **ends}
