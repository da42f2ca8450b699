"""Requests to one server: what is sent with them, and what its errors say, without the key."""

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpcore2

from worker.backends.openai.addresses import CheckedAddresses
from worker.backends.openai.problems import Refused, TryAgain

# What it logs of answers' headers, at its most talkative, may show a key that a server repeats.
logging.getLogger("httpcore2").setLevel(logging.WARNING)

CONNECT_SECONDS = 10.0
LOOK_SECONDS = 5.0  # for requests that cost a server nothing
KEEP_SECONDS = 15.0  # a connection that nobody uses
MAX_BODY = 4_000_000  # bytes of an answer that is no stream
MAX_SAID = 300  # characters of what a server says in an error
AGAIN = frozenset({408, 425, 429})
HIDDEN = "[key]"


class Client:
    """Speaks to ``base_url``: no redirects, no proxies of the environment, certificates verified.

    ``base_url`` may change between requests. ``on_bytes`` is called with whatever arrives. For one event loop.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None,
        private: bool,
        connections: int,
        timeout: float,
        on_bytes: Callable[[], None],
    ):
        self.base_url, self.timeout, self._key, self._on_bytes = base_url, timeout, key, on_bytes
        encrypted = base_url.startswith("https://")
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpcore2.default_ssl_context() if encrypted else None,
            max_connections=connections + 1,
            keepalive_expiry=KEEP_SECONDS,
            network_backend=CheckedAddresses(private=private, clear_key=key is not None and not encrypted),
        )

    @asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Post ``body`` and read the stream of events that answers it.

        Raises `TryAgain` and `Refused`, in the block as well.
        """
        content = json.dumps(body, ensure_ascii=False).encode()
        async with self._ask("POST", self.base_url + path, content, self.timeout) as response:
            await self._check(response)
            kind = _header(response, b"content-type").partition(";")[0].strip().lower()
            if kind != "text/event-stream":
                said = self.told(await self._body(response))
                raise Refused(f"The server answered with {kind or 'something'} instead of a stream: {said}")
            yield self._bytes(response)

    async def look(self, url: str, timeout: float = LOOK_SECONDS) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of a GET. Raises `TryAgain` where there is no answer, `Refused` for a redirect."""
        async with self._ask("GET", url, None, timeout) as response:
            if 300 <= response.status < 400:
                await self._check(response)
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return response.status, headers, await self._body(response)

    def told(self, body: bytes) -> str:
        """What an error's body says, in one line that shows no key."""
        text = body.decode("utf-8", "replace")
        try:
            text = _message(json.loads(text))
        except ValueError:  # no JSON: what is there is shown
            text = text or "(nothing)"
        return self.hide(" ".join(text.split()))[:MAX_SAID]

    def hide(self, text: str) -> str:
        """``text`` without the key."""
        return text.replace(self._key, HIDDEN) if self._key else text

    async def close(self) -> None:
        await self._pool.aclose()

    @asynccontextmanager
    async def _ask(
        self, method: str, url: str, content: bytes | None, timeout: float
    ) -> AsyncIterator[httpcore2.Response]:
        headers = [("user-agent", "touchstone"), ("accept", "text/event-stream, application/json")]
        headers.append(("accept-encoding", "identity"))
        headers += [("content-type", "application/json")] if content is not None else []
        headers += [("authorization", f"Bearer {self._key}")] if self._key else []
        limits = {"connect": min(timeout, CONNECT_SECONDS), "read": timeout, "write": timeout, "pool": timeout}
        try:
            async with self._pool.stream(
                method,
                url,
                headers=headers,
                content=content,
                extensions={"timeout": limits},
            ) as response:
                self._on_bytes()
                yield response
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError) as error:
            raise self._problem(error, timeout) from error

    def _problem(self, error: Exception, timeout: float) -> Exception:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Refused(f"The server's certificate cannot be verified: {cause.verify_message}.")
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpcore2.ConnectError | httpcore2.ConnectTimeout):
            said = self.hide(str(error)) or "no connection"
            return TryAgain(f"The server cannot be reached ({said}).", connection=True)
        if isinstance(error, httpcore2.TimeoutException):
            return TryAgain(f"The server has sent nothing for {timeout:g} s.")
        return TryAgain(f"The server broke off ({type(error).__name__}).", connection=True)

    async def _check(self, response: httpcore2.Response) -> None:
        status = response.status
        if status == HTTPStatus.OK:
            return
        if 300 <= status < 400:
            place = self.hide(_header(response, b"location").partition("?")[0])[:MAX_SAID]
            raise Refused(f"The server answers {status} and redirects to {place}; give that as base_url.", status)
        line = f"The server answers {_named(status)}: {self.told(await self._body(response))}"
        if status >= 500 or status in AGAIN:
            raise TryAgain(line, _seconds(_header(response, b"retry-after")))
        raise Refused(line, status)

    async def _body(self, response: httpcore2.Response) -> bytes:
        """The beginning of an answer; what else there is is not read."""
        body = b""
        async for chunk in self._bytes(response):
            body += chunk
            if len(body) > MAX_BODY:
                break
        return body

    async def _bytes(self, response: httpcore2.Response) -> AsyncIterator[bytes]:
        async for chunk in response.aiter_stream():
            self._on_bytes()
            yield chunk


async def finish_reading(chunks: AsyncIterator[bytes]) -> None:
    """Read what follows the last event, so that the connection can be used again; not for long."""
    try:
        async with asyncio.timeout(0.5):
            async for _ in chunks:
                continue
    except (TimeoutError, httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError):
        return  # the answer is complete: what became of its connection is of no interest


def _header(response: httpcore2.Response, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in response.headers if name.lower() == wanted), "")


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _message(said: Any) -> str:
    """The words of an error, however a server wraps them."""
    while isinstance(said, Mapping):
        inner = next((said[key] for key in ("error", "message", "detail", "msg") if said.get(key)), None)
        if inner is None:
            break
        said = inner
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


def _seconds(retry_after: str) -> float | None:
    """A Retry-After header as seconds from now; None where it says nothing that can be read."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
