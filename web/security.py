"""What every answer carries so that a page runs only our own code, and who asks."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from flask import Response, g, session


def secret_key(data: Path) -> str:
    """The key that signs sessions, made on first use; only this user can read it."""
    data.mkdir(parents=True, exist_ok=True)
    file = data / "secret_key"
    draft = data / f"secret_key.{secrets.token_hex(4)}"
    if not file.exists():
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(32))
        with suppress(FileExistsError):  # another process was first: its key holds
            os.link(draft, file)
        draft.unlink()
    return file.read_text(encoding="ascii")


def prepare() -> None:
    """Give the request a nonce for its scripts."""
    g.nonce = secrets.token_urlsafe(16)


def owner() -> str:
    """A random name for this browser, kept in its signed session."""
    if "owner" not in session:
        session.permanent = True
        session["owner"] = secrets.token_hex(8)
    return str(session["owner"])


def add_headers(response: Response) -> Response:
    nonce = g.get("nonce", "")
    # Plotly sets styles on its elements, which only 'unsafe-inline' styles allow; scripts need the nonce.
    policy = (
        "default-src 'none'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; form-action 'self'; "
        f"base-uri 'none'; frame-ancestors 'none'; style-src 'self' 'unsafe-inline'; script-src 'self' 'nonce-{nonce}'"
    )
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "same-origin"
    return response
