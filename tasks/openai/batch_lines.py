"""The file of a batch: a request a line, each looked at before anything of it is done."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import IO, Annotated, Any, Literal, NamedTuple

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput, TouchstoneError
from tasks.openai.bodies import BODIES, Asked, Endpoint
from tasks.openai.models import ALL, check_model
from tasks.registry import Registry
from tasks.schema import Characters, Said, Schema, validated

MAX_LINES = 50_000
MAX_LINE_BYTES = 2**21
MAX_PROBLEMS = 1000
BOM = b"\xef\xbb\xbf"


class Line(Schema):
    """One request of a batch; ``method`` and ``url`` may be left out."""

    custom_id: Annotated[str, Characters(512, 1)]
    method: Annotated[Literal["POST"], Said("must be POST")] = "POST"
    url: Annotated[Endpoint, Said(f"must be {' or '.join(Endpoint)}")] | None = None
    body: dict[str, Any]


@dataclass(frozen=True)
class LineProblem:
    """Why a line (from 1; None: the whole file) cannot be taken."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Group(NamedTuple):
    """Lines that become one run: of one model, or all, and of one number of samples."""

    model: str
    samples: int


@dataclass
class BatchFile:
    """A file of requests to ``endpoint``. After `look_through`, ``offsets`` has where the lines of each group begin."""

    file: IO[bytes]
    endpoint: Endpoint
    registry: Registry
    offsets: dict[Group, list[int]] = field(default_factory=dict)
    problems: list[LineProblem] = field(default_factory=list)

    def look_through(self) -> None:
        """Read the whole file and note every problem, but no more than `MAX_PROBLEMS`."""
        ids: set[str] = set()
        for number, (line, offset, data) in enumerate(self._lines(), 1):
            if number > MAX_LINES:
                self._note(InvalidInput(f"A batch takes {MAX_LINES} requests; split the file."), None)
                return
            if len(self.problems) == MAX_PROBLEMS:
                self._note(InvalidInput("There are more problems than are listed here."), None)
                return
            try:
                request = self._request(data)
                if request.custom_id in ids:
                    raise InvalidInput(f"custom_id {request.custom_id!r} is an earlier line's too.", "custom_id")
                ids.add(request.custom_id)
                asked = self._asked(request.body)
                self.offsets.setdefault(Group(asked.model, asked.samples), []).append(offset)
            except TouchstoneError as error:
                self._note(error, line)
        if not ids and not self.problems:
            self._note(InvalidInput("The file has no request; write one a line."), None)

    def prompts(self, group: Group) -> Iterator[NewPrompt]:
        """The prompts of a group, in the order of the file, each with its own decoding settings."""
        for offset in self.offsets[group]:
            self.file.seek(offset)
            request = self._request(self.file.readline())
            asked = self._asked(request.body)
            yield replace(asked.prompts[0], custom_id=request.custom_id, sampling=asked.sampling or None)

    def _note(self, error: TouchstoneError, line: int | None) -> None:
        self.problems.append(LineProblem(error.code, error.message, error.field, line))

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, offset and bytes of each line that is not blank; of one that is too long only the beginning."""
        offset, line = 0, 0
        while data := self.file.readline(MAX_LINE_BYTES + 1):
            line += 1
            begin = offset
            offset += len(data)
            part = data
            while len(part) > MAX_LINE_BYTES and not part.endswith(b"\n"):
                part = self.file.readline(MAX_LINE_BYTES + 1)
                offset += len(part)
            if data.strip() not in (b"", BOM):
                yield line, begin, data

    def _request(self, data: bytes) -> Line:
        if len(data) > MAX_LINE_BYTES:
            raise InvalidInput(f"The line has more than {MAX_LINE_BYTES} bytes; shorten it.")
        try:
            value = json.loads(data.removeprefix(BOM))
        except (ValueError, RecursionError):
            raise NotJson("The line is not one JSON object in UTF-8.") from None
        if not isinstance(value, Mapping):
            raise NotJson("The line is not a JSON object.")
        request = validated(Line, value)
        if request.url not in (None, self.endpoint):
            raise InvalidInput(f"url is {request.url}, but the batch is for {self.endpoint}.", "url")
        return request

    def _asked(self, body: Mapping[str, Any]) -> Asked:
        """What a line asks; errors name the field within ``body``."""
        try:
            asked = validated(BODIES[self.endpoint], body).asked()
            if asked.stream:
                raise InvalidInput("stream has no meaning in a batch; leave it out.", "stream")
            if len(asked.prompts) > 1:
                raise InvalidInput("prompt has several texts; write each on a line of its own.", "prompt")
            if asked.model != ALL:
                check_model(asked.model, self.registry)
        except TouchstoneError as error:
            error.field = f"body.{error.field}" if error.field else "body"
            raise
        return asked


class NotJson(InvalidInput):
    """A line that cannot be read."""

    code = "invalid_json_line"


def problems_of(problems: list[LineProblem]) -> list[dict[str, Any]]:
    """Problems as the ledger stores them and the interface shows them."""
    return [asdict(problem) for problem in problems]
