"""The connection that a request came over: whether anybody still listens."""

import select
import socket
from typing import Any


def is_gone(environ: dict[str, Any]) -> bool:
    """Whether the client has closed the connection of this request; False where the server does not tell it."""
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if not isinstance(connection, socket.socket):
        return False
    try:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        return bool(poll.poll(0)) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
