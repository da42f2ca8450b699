"""Is the process up, and is what it needs there."""

from flask import Blueprint
from flask.typing import ResponseReturnValue

from tasks.errors import Unavailable
from web.host import service
from web.schema.answers import Health

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """The process answers."""
    return Health(status="ok").model_dump()


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Ledger and Redis answer; 503 names what does not."""
    service().ledger.ping()
    if not service().redis_alive():
        raise Unavailable("Redis does not answer; runs are stored and start when it is back.")
    return Health(status="ready").model_dump()
