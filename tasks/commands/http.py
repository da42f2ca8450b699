"""The API of a running Touchstone, as commands use it: JSON both ways, files sent and fetched as streams."""

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tasks.errors import InvalidInput, Unavailable

TIMEOUT = 60.0
FILE_TIMEOUT = 600.0  # for what takes a server long: a large file looked through, an export begun
NO_CONTENT = 204
AWAY = (502, 503, 504)
READ_BYTES = 2**18


class Api:
    """Requests to one server. Each raises `InvalidInput` with the server's message, or `Unavailable`."""

    def __init__(self, base: str):
        self.base = base.rstrip("/")

    def get(self, path: str, **query: Any) -> Any:
        return self._json(self._request(path, query))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        request = self._request(path, {}, json.dumps(dict(body)).encode())
        request.add_header("Content-Type", "application/json")
        return self._json(request, FILE_TIMEOUT)

    def delete(self, path: str) -> None:
        request = self._request(path, {})
        request.method = "DELETE"
        self._json(request)

    def send(self, path: str, file: Path, **query: Any) -> Any:
        """Post a file as it is, read while it is sent."""
        try:
            with file.open("rb") as stream:
                request = self._request(path, query, stream)
                request.add_header("Content-Type", "application/octet-stream")
                request.add_header("Content-Length", str(os.fstat(stream.fileno()).st_size))
                return self._json(request, FILE_TIMEOUT)
        except OSError as error:
            raise InvalidInput(f"{file}: cannot be read ({error.strerror}).") from None

    def fetch(self, path: str, **query: Any) -> "Download":
        """Begin to fetch a file."""
        return Download(self._open(self._request(path, query), FILE_TIMEOUT))

    def _request(self, path: str, query: Mapping[str, Any], body: Any = None) -> urllib.request.Request:
        given = {name: value for name, value in query.items() if value not in (None, "", [])}
        asked = f"?{urllib.parse.urlencode(given, doseq=True)}" if given else ""
        return urllib.request.Request(f"{self.base}/api/{path}{asked}", body)

    def _json(self, request: urllib.request.Request, timeout: float = TIMEOUT) -> Any:
        with self._open(request, timeout) as response:
            if response.status == NO_CONTENT:
                return None
            try:
                return json.load(response)
            except (OSError, http.client.HTTPException) as error:
                raise _away(request.full_url, error) from None
            except ValueError:
                raise InvalidInput(f"{request.full_url} answered no JSON; is this a Touchstone?") from None

    def _open(self, request: urllib.request.Request, timeout: float) -> Any:
        try:
            return urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            message = _message(error, request.full_url)
            raise (Unavailable if error.code in AWAY else InvalidInput)(message) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _away(request.full_url, error) from None


class Download:
    """A file on its way here; ``name`` is what the server calls it, None where it does not say."""

    def __init__(self, response: Any):
        self._response = response
        name = response.headers.get_filename()
        self.name = Path(name).name or None if name else None

    def save(self, stream: IO[bytes]) -> int:
        """Write all of it and return the number of bytes. Raises `Unavailable` when the server breaks off."""
        written = 0
        with self._response as response:
            try:
                while piece := response.read(READ_BYTES):
                    written += stream.write(piece)
            except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
                raise _away(response.url, error) from None
            said = response.headers.get("Content-Length")
        if said and written < int(said):
            raise _away(response.url, f"it broke off after {written} of {said} bytes")
        return written


def run_path(run_id: str, *parts: str) -> str:
    """The path of a run, or of something of it."""
    return "/".join(["runs", urllib.parse.quote(run_id, safe=""), *parts])


def _message(error: urllib.error.HTTPError, url: str) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return f"{url} answered {error.code}; is this a Touchstone?"


def _away(url: str, error: object) -> Unavailable:
    return Unavailable(f"{url} does not answer ({error}); start './touchstone up' or give --url.")
