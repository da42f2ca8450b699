"""Files over HTTP: those that batches are made of, and what comes of batches, made when it is read."""

import os
from collections.abc import Iterator
from typing import Any

from flask import Response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from tasks.errors import InvalidInput
from tasks.files.uploads import UploadStore
from tasks.ledger.records import Upload
from tasks.openai.batches import OWNER, PURPOSE
from web import received
from web.host import service
from web.openai.blueprint import batches, blueprint, listed
from web.openai.queries import FilesQuery
from web.received import UnsupportedType

MAX_BYTES = 200 * 2**20
MAX_FORM_BYTES = 2**20  # of what a form has beside the file
PIECE_BYTES = 2**18
JSON_LINES = "application/jsonl"


@blueprint.post("/files")
def create_file() -> ResponseReturnValue:
    if request.mimetype != "multipart/form-data":
        raise UnsupportedType("Send a form (multipart/form-data) with the fields file and purpose.")
    request.max_content_length = MAX_BYTES + MAX_FORM_BYTES
    if (request.content_length or 0) > request.max_content_length:
        raise _too_large()
    file = request.files.get("file")
    if file is None:
        raise InvalidInput("The form has no file; send it as the field file.", "file")
    if request.form.get("purpose") != PURPOSE:
        raise InvalidInput(f"purpose must be {PURPOSE}: nothing else is done with files here.", "purpose")
    for name in request.form.keys() - {"purpose"}:
        raise InvalidInput(f"{name} is not supported here; leave it out.", name)
    if file.stream.seek(0, os.SEEK_END) > MAX_BYTES:
        raise _too_large()
    file.stream.seek(0)
    return _object(service().uploads.store(file.stream, file.filename or "file", OWNER, PURPOSE, MAX_BYTES))


@blueprint.get("/files")
def list_files() -> ResponseReturnValue:
    query = received.query(FilesQuery)
    found = service().uploads.ledger.uploads.newest(OWNER, query.purpose, query.after, query.limit + 1)
    return listed([_object(upload) for upload in found], query.limit)


@blueprint.get("/files/<file_id>")
def retrieve_file(file_id: str) -> ResponseReturnValue:
    if result := batches().result(file_id):
        batch, lines = result
        size, name = sum(map(len, lines)), f"{file_id.removeprefix('file-')}.jsonl"
        return _shown(file_id, size, batch.created, name, f"{PURPOSE}_output")
    return _object(service().uploads.ledger.uploads.get(file_id, OWNER))


@blueprint.get("/files/<file_id>/content")
def file_content(file_id: str) -> ResponseReturnValue:
    if result := batches().result(file_id):
        return Response(result[1], mimetype=JSON_LINES)
    pieces = _pieces(service().uploads, file_id)
    next(pieces)  # a file that is not there is an error, not an answer that breaks off
    return Response(pieces, mimetype="application/octet-stream")


@blueprint.delete("/files/<file_id>")
def delete_file(file_id: str) -> ResponseReturnValue:
    if batches().result(file_id):
        raise InvalidInput("The results of a batch are part of its runs; delete those.", "file_id")
    found = service().uploads.ledger.uploads.get(file_id, OWNER)
    service().uploads.delete(found.id)
    return {"id": found.id, "object": "file", "deleted": True}


def _too_large() -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"The file has more than {MAX_BYTES} bytes, the limit; split it.")


def _pieces(store: UploadStore, file_id: str) -> Iterator[bytes]:
    with store.open(file_id, OWNER) as (_, file):
        yield b""
        while piece := file.read(PIECE_BYTES):
            yield piece


def _object(upload: Upload) -> dict[str, Any]:
    return _shown(upload.id, upload.bytes, upload.created, upload.name, upload.purpose)


def _shown(file_id: str, size: int, created: float, name: str, purpose: str) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": int(created),
        "expires_at": None,
        "filename": name,
        "purpose": purpose,
        "status": "processed",
    }
