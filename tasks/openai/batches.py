"""Batches: a file of requests becomes runs, and what comes of them two files."""

import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from tasks.errors import Conflict, InvalidInput, NotFound, TouchstoneError
from tasks.files.uploads import UploadStore
from tasks.ledger.batches import Batch, LineCounts
from tasks.ledger.records import Run
from tasks.openai.batch_lines import BatchFile, Group, problems_of
from tasks.openai.batch_object import BatchStatus, batch_object, output_id, status_of
from tasks.openai.bodies import Endpoint
from tasks.openai.models import ALL
from tasks.openai.results import error_lines, output_lines
from tasks.schema import Characters, Many, Schema, one_of
from tasks.service import Service
from tasks.states import RunKind

OWNER = "openai"
PURPOSE = "batch"  # of the files that batches are made of
WINDOW = re.compile(r"([1-9]\d{0,2})([hd])", re.ASCII)
HOUR_SECONDS = {"h": 3600.0, "d": 86_400.0}
MAX_WINDOW = 30 * 86_400.0
RESULT = re.compile(r"file-(batch_\w+)-(output|errors)", re.ASCII)


def seconds_of(window: str) -> float:
    """How long a completion window such as 24h or 3d is. Raises `ValueError`."""
    found = WINDOW.fullmatch(window)
    seconds = int(found[1]) * HOUR_SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= MAX_WINDOW:
        raise ValueError(window)
    return seconds


def _window(value: Any) -> Any:
    try:
        seconds_of(str(value))
    except ValueError:
        raise PydanticCustomError("window", "must be a time such as 24h or 7d, at most 30d") from None
    return value


class NewBatch(Schema):
    """What a batch is made of."""

    input_file_id: Annotated[str, Characters(64, 1)]
    endpoint: Annotated[Endpoint, one_of(*Endpoint)]
    completion_window: Annotated[str, BeforeValidator(_window)]
    metadata: (
        Annotated[dict[Annotated[str, Characters(64, 1)], Annotated[str, Characters(512)]], Many("texts by name", 16)]
        | None
    ) = None


class Batches:
    """The batches of a service; their files are in ``uploads``."""

    def __init__(self, service: Service, uploads: UploadStore):
        self.service, self.ledger, self.uploads = service, service.ledger, uploads

    def create(self, asked: NewBatch, key: str | None = None) -> dict[str, Any]:
        """A batch and its runs; one whose file has problems has no run and tells them.

        The runs come first, the batch's own row last: until then nobody sees the batch, and runs that get none are
        removed by `tasks.ledger.batches.Batches.settle`. With an idempotency ``key`` a repeated request gets the same
        batch, and one that was interrupted goes on with the runs that are there. Raises `NotFound` (the file),
        `InvalidInput`, `Conflict` (the key was used for another batch) and `Unavailable`.
        """
        batch_id = f"batch_{_digest(key) if key else secrets.token_hex(12)}"
        new = Batch(batch_id, asked.input_file_id, asked.endpoint, asked.completion_window, OWNER, asked.metadata)
        found = self._earlier(new) if key else None
        return self.described(found or self._made(new, key))

    def get(self, batch_id: str) -> Batch:
        """A batch; one that has expired is ended. Raises `NotFound`."""
        self.ledger.batches.settle()
        return self.ledger.batches.get(batch_id, OWNER)

    def newest(self, after: str | None, limit: int) -> list[dict[str, Any]]:
        """Batches, newest first: those that come after the one with this id. Raises `NotFound`."""
        self.ledger.batches.settle()
        return [self.described(batch) for batch in self.ledger.batches.newest(OWNER, after, limit)]

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """End a batch; what was answered by then stays. Raises `NotFound`, and `Conflict` where it has ended."""
        batch = self.get(batch_id)
        status = self._status(batch, self.ledger.batches.runs(batch.id))
        if status.has_ended and status is not BatchStatus.CANCELLED:
            raise Conflict(f"This batch is {status}, so it cannot be cancelled.")
        self.ledger.batches.cancel(batch.id)
        return self.described(self.get(batch_id))

    def described(self, batch: Batch) -> dict[str, Any]:
        """A batch as it is now."""
        runs = self.ledger.batches.runs(batch.id)
        lines = sum(map(self.ledger.batches.lines, runs), LineCounts(0, 0, 0))
        return batch_object(batch, runs, lines, self._status(batch, runs))

    def result(self, file_id: str) -> tuple[Batch, Iterator[bytes]] | None:
        """What came of a batch, as the file with this id; None where the id is of no such file.

        Raises `NotFound` where the batch has no such file, or not yet.
        """
        found = RESULT.fullmatch(file_id)
        if not found:
            return None
        batch = self.get(found[1])
        shown = self.described(batch)
        if file_id not in (shown["output_file_id"], shown["error_file_id"]):
            raise NotFound(f"There is no file {file_id!r}: the batch is {shown['status']}.", "file_id")
        lines = output_lines if file_id == output_id(batch.id) else error_lines
        return batch, lines(self.ledger, self.ledger.batches.runs(batch.id), Endpoint(batch.endpoint))

    def _status(self, batch: Batch, runs: list[Run]) -> BatchStatus:
        return status_of(batch, runs, self.ledger.clock())

    def _earlier(self, new: Batch) -> Batch | None:
        """The batch that was made with the same idempotency key."""
        try:
            found = self.ledger.batches.get(new.id, OWNER)
        except NotFound:
            return None
        if _wish(found) != _wish(new):
            raise Conflict("This Idempotency-Key was used for another batch; choose a new key.", "Idempotency-Key")
        return found

    def _made(self, new: Batch, key: str | None) -> Batch:
        with self.uploads.open(new.upload, OWNER) as (upload, file):
            if upload.purpose != PURPOSE:
                raise InvalidInput(f"The file's purpose is {upload.purpose!r}; upload it for {PURPOSE!r}.", "purpose")
            lines = BatchFile(file, Endpoint(new.endpoint), self.service.registry)
            lines.look_through()
            runs = [] if lines.problems else self._submitted(new, lines, upload.name, key)
        problems = problems_of(lines.problems) or None
        made = Batch(new.id, new.upload, new.endpoint, new.window, OWNER, new.metadata, problems)
        return self.ledger.batches.add(made, seconds_of(new.window), len(runs))

    def _submitted(self, new: Batch, lines: BatchFile, title: str, key: str | None) -> list[Run]:
        """A run for each group of lines, all of them or none."""
        runs: list[Run] = []
        ours: list[Run] = []  # others were there, and may be of a batch that the same request has made meanwhile
        try:
            for number, group in enumerate(lines.offsets):
                run, is_new = self._submit(new.id, lines, group, title, f"{new.id}.{number}" if key else None)
                runs.append(run)
                ours += [run] if is_new else []
        except BaseException:
            for run in ours:
                with suppress(TouchstoneError):  # then it is removed later
                    self.service.delete(run.id)
            raise
        return runs

    def _submit(self, batch_id: str, lines: BatchFile, group: Group, title: str, key: str | None) -> tuple[Run, bool]:
        return self.service.submit(
            prompts=lines.prompts(group),
            models=None if group.model == ALL else [group.model],
            sampling={},
            samples=group.samples,
            owner=OWNER,
            kind=RunKind.BULK,
            idempotency_key=key,
            title=title,
            batch=batch_id,
        )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def _wish(batch: Batch) -> tuple[Any, ...]:
    return batch.upload, batch.endpoint, batch.window, dict(batch.metadata or {})
