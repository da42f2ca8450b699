"""Files of prompts that are handed in, what they hold, how long a run of them would take, and names for sets."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from flask import Response, request
from flask.typing import ResponseReturnValue

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput
from tasks.files.read import preview, read
from tasks.files.read.reading import Reading
from tasks.states import RunKind
from web import received, views
from web.api.blueprint import OWNER, blueprint, json_of
from web.host import service
from web.received import UnsupportedType
from web.schema import answers, requests

DRAINED_BYTES = 2**16


@blueprint.post("/uploads")
def upload() -> ResponseReturnValue:
    """A file of prompts as the body, stored as it comes in."""
    if request.mimetype != "application/octet-stream":
        raise UnsupportedType("Send the file as it is, with the header Content-Type: application/octet-stream.")
    try:
        query = received.query(requests.UploadQuery)
        stream = io.BufferedReader(cast(io.RawIOBase, request.stream))
        stored = service().uploads.store(stream, query.name, OWNER)
    finally:
        # A client that is still sending would never read the answer to its mistake.
        while request.stream.read(DRAINED_BYTES):
            pass
    return _previewed(stored.id, Reading()), 201


@blueprint.post("/uploads/<upload_id>/preview")
def show_upload(upload_id: str) -> ResponseReturnValue:
    return _previewed(upload_id, received.body(Reading, required=False))


@blueprint.delete("/uploads/<upload_id>")
def delete_upload(upload_id: str) -> ResponseReturnValue:
    service().ledger.uploads.get(upload_id, OWNER)
    service().uploads.delete(upload_id)
    return "", 204


@blueprint.post("/estimate")
def estimate() -> ResponseReturnValue:
    asked = received.body(requests.EstimateRequest)
    found = service().estimate(
        prompts=asked.prompts,
        lengths=asked.lengths,
        models=asked.models,
        sampling=asked.sampling.model_dump(exclude_none=True),
        owner=OWNER,
        samples=asked.samples,
        kind=RunKind.BULK,
    )
    return json_of(views.estimate(found))


@blueprint.get("/sets")
def sets() -> ResponseReturnValue:
    return json_of(answers.PromptSets(sets=[views.prompt_set(one) for one in service().ledger.sets.all()]))


@blueprint.put("/sets/<digest>")
def name_set(digest: str) -> ResponseReturnValue:
    service().name_set(digest, received.body(requests.SetName).name)
    return "", 204


@contextmanager
def prompts_of(sent: requests.SentPrompts) -> Iterator[Iterator[NewPrompt]]:
    """The prompts of a request: its own, or those of a file that was uploaded before. Raises `InvalidInput`."""
    if sent.upload is None:
        yield sent.new_prompts()
        return
    with service().uploads.open(sent.upload, OWNER) as (stored, stream):
        yield read(stream, stored.name, sent.reading or Reading())


def _previewed(upload_id: str, reading: Reading) -> Response:
    with service().uploads.open(upload_id, OWNER) as (stored, stream):
        try:
            return json_of(views.upload(stored, preview(stream, stored.name, reading)))
        except InvalidInput as error:
            return json_of(views.upload(stored, None, error))
