"""Chat completions and completions: one run a request."""

import contextlib
from collections.abc import Iterator
from functools import partial

from flask import Response, request
from flask.typing import ResponseReturnValue

from tasks.openai.bodies import Asked, ChatBody, CompletionBody
from tasks.openai.models import check_model
from tasks.openai.objects import answer_object
from web import received
from web.host import service
from web.openai.answering import Answering, place
from web.openai.blueprint import blueprint
from web.openai.connection import is_gone
from web.openai.streaming import ChunkStream

CHAT_EXAMPLE = '{"model": "…", "messages": [{"role": "user", "content": "…"}]}'
EXAMPLE = '{"model": "…", "prompt": "…"}'
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@blueprint.post("/chat/completions")
def chat() -> ResponseReturnValue:
    return _answered(received.body(ChatBody, example=CHAT_EXAMPLE).asked())


@blueprint.post("/completions")
def complete() -> ResponseReturnValue:
    return _answered(received.body(CompletionBody, example=EXAMPLE).asked())


def _answered(asked: Asked) -> ResponseReturnValue:
    check_model(asked.model, service().registry)
    with contextlib.ExitStack() as held:
        held.enter_context(place())
        answering = Answering(service(), asked, partial(is_gone, request.environ))
        if asked.stream:
            lines = _guarded(ChunkStream(answering), held.pop_all())
            next(lines)  # closing a generator that never began would keep the place for ever
            return Response(lines, mimetype="text/event-stream", headers=UNBUFFERED)
        for _ in answering.events():
            pass
    return answer_object(asked.endpoint, answering.run.id, answering.rows)


def _guarded(stream: ChunkStream, held: contextlib.ExitStack) -> Iterator[str]:
    with held:
        yield ""
        yield from stream.lines()
