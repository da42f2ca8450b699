"""Query parameters of OpenAI's lists."""

from typing import Annotated, Literal

from tasks.schema import Characters, Said, Schema, whole
from web.schema.values import FromText


class PageQuery(Schema):
    """A page of a list, newest first."""

    after: Annotated[str, Characters(64, 1)] | None = None
    limit: Annotated[int, whole(1, 100), FromText] = 20


class FilesQuery(Schema):
    """A page of the files."""

    after: Annotated[str, Characters(64, 1)] | None = None
    limit: Annotated[int, whole(1, 10_000), FromText] = 10_000
    order: Annotated[Literal["desc"], Said("must be desc: lists are newest first")] = "desc"
    purpose: Annotated[str, Characters(32, 1)] | None = None
