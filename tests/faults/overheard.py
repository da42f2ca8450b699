"""What goes through a Redis and what lies in it, with the bodies of messages decoded."""

import base64
import re
import socket
import threading
from typing import Any

import redis

ENCODED = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}")


def decoded(raw: bytes) -> bytes:
    """``raw``, and after it whatever in it can be read as base64: Celery packs the bodies of its messages so."""
    found = [raw]
    for piece in ENCODED.findall(raw):
        found.append(base64.b64decode(piece[: len(piece) // 4 * 4] if not piece.endswith(b"=") else piece))
    return b"\n".join(found)


def held_by(client: redis.Redis) -> bytes:
    """Every key and value that a Redis holds now."""
    read = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    # A key may be gone by the time it is looked at, which Redis calls the type none.
    found = [(key, read[kind](key)) for key in client.scan_iter() if (kind := client.type(key)) in read]
    return decoded(_joined(found))


def _joined(value: Any) -> bytes:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set):
        return b"\n".join(map(_joined, value))
    return value if isinstance(value, bytes) else str(value).encode()


class Eavesdropper:
    """Hears every command that a Redis is given, from the moment it is made."""

    def __init__(self, port: int):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._raw = bytearray()
        self._socket.sendall(b"MONITOR\r\n")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while some := self._socket.recv(65_536):
            self._raw += some

    def end(self) -> bytes:
        """Stop; returns what was heard."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        return decoded(bytes(self._raw))
