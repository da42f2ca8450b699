"""Tokens on their way to a page: a short-lived Redis stream a run. The ledger has the final text."""

import logging
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis.exceptions import RedisError

from tasks.errors import Unavailable

logger = logging.getLogger(__name__)

KEEP_SECONDS = 600
KEEP_EVENTS = 20_000


@dataclass(frozen=True)
class LiveEvent:
    """Text added to a completion, or to the thinking before it; a higher ``attempt`` starts both anew:
    it grows with each claim and with each time that a backend begins anew.

    ``id`` resumes the stream. An event without any text says that the completion is in the ledger.
    """

    id: str
    model: str
    idx: int
    sample: int
    attempt: int
    text: str
    thinking: str = ""

    @property
    def is_end(self) -> bool:
        return not self.text and not self.thinking


def connect(url: str) -> redis.Redis:
    """A Redis client whose every call ends within two seconds."""
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, decode_responses=True)


class Live:
    def __init__(self, url: str):
        self.client = connect(url)

    def publish(self, run_id: str, events: list[LiveEvent]) -> None:
        """Add events (their ids are given by Redis). Nothing is lost for good when Redis is away: only the show is."""
        pipeline = self.client.pipeline(transaction=False)
        for event in events:
            fields = {"m": event.model, "i": event.idx, "s": event.sample, "a": event.attempt, "t": event.text}
            fields |= {"k": event.thinking} if event.thinking else {}
            pipeline.xadd(_key(run_id), cast(Any, fields), maxlen=KEEP_EVENTS)
        pipeline.expire(_key(run_id), KEEP_SECONDS)
        try:
            pipeline.execute()
        except RedisError as error:
            logger.warning("live tokens not sent: %s", type(error).__name__)

    def read(self, run_id: str, after: str, block_seconds: float) -> list[LiveEvent]:
        """Events after the id ``after`` ("0": from the start), waiting up to ``block_seconds`` (below 2) for one.

        Raises `Unavailable` when Redis is away.
        """
        try:
            found = self.client.xread({_key(run_id): after}, count=500, block=max(1, int(block_seconds * 1000)))
        except RedisError as error:
            raise Unavailable(f"Redis does not answer ({type(error).__name__}); live text pauses.") from error
        return [
            LiveEvent(event_id, f["m"], int(f["i"]), int(f["s"]), int(f["a"]), f["t"], f.get("k", ""))
            for _, entries in cast(Any, found or [])
            for event_id, f in entries
        ]


def _key(run_id: str) -> str:
    return f"live:{run_id}"
