"""``run FILE``: a program's way through the API of a running Touchstone."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click

from tasks.errors import InvalidInput, Unavailable

POLL_SECONDS = 0.5
TIMEOUT = 60.0


def call(url: str, body: Any = None) -> Any:
    """One request to the API. Raises `InvalidInput` with the server's message, or `Unavailable`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        try:
            message = json.load(error)["error"]["message"]
        except (ValueError, KeyError):
            message = f"{url} answered {error.code}; is this a Touchstone?"
        raise InvalidInput(message) from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Unavailable(f"{url} does not answer ({error}); start './touchstone up' or give --url.") from None


def run_file(base: str, file: Path, models: list[str], samples: int) -> None:
    """Submit a prompt a line, show a bar with rate and time left, then a table."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file}: cannot be read as UTF-8 text ({error}).") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise InvalidInput(f"{file} holds no prompt; write one a line.")
    body = {"prompts": prompts, "samples": samples, "kind": "bulk"} | ({"models": models} if models else {})
    run = call(f"{base}/api/runs", body)
    click.echo(f"{base}{run['url']}")
    _follow(f"{base}/api/runs/{run['id']}")


def _follow(url: str) -> None:
    started = time.monotonic()
    state = call(url)
    with click.progressbar(length=state["counts"]["total"], show_eta=True, show_pos=True) as bar:
        while True:
            ended = state["counts"]["total"] - state["counts"]["pending"]
            rate = ended / max(time.monotonic() - started, 1e-3)
            bar.label = f"{rate:.1f}/s"
            bar.update(ended - bar.pos)
            if state["state"] in ("done", "cancelled"):
                break
            time.sleep(POLL_SECONDS)
            state = call(url)
    click.echo(f"{'model':24} {'done':>8} {'failed':>8} {'cancelled':>10}")
    for model in state["models"]:
        counts = model["counts"]
        click.echo(f"{model['name']:24} {counts['done']:8} {counts['failed']:8} {counts['cancelled']:10}")
