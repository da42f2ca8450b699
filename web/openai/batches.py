"""Batches over HTTP."""

from flask import request
from flask.typing import ResponseReturnValue

from tasks.openai.batches import NewBatch
from web import received
from web.openai.blueprint import batches, blueprint, listed
from web.openai.queries import PageQuery

EXAMPLE = '{"input_file_id": "file-…", "endpoint": "/v1/chat/completions", "completion_window": "24h"}'


@blueprint.post("/batches")
def create_batch() -> ResponseReturnValue:
    return batches().create(received.body(NewBatch, example=EXAMPLE), request.headers.get("Idempotency-Key"))


@blueprint.get("/batches")
def list_batches() -> ResponseReturnValue:
    query = received.query(PageQuery)
    return listed(batches().newest(query.after, query.limit + 1), query.limit)


@blueprint.get("/batches/<batch_id>")
def retrieve_batch(batch_id: str) -> ResponseReturnValue:
    found = batches()
    return found.described(found.get(batch_id))


@blueprint.post("/batches/<batch_id>/cancel")
def cancel_batch(batch_id: str) -> ResponseReturnValue:
    return batches().cancel(batch_id)
