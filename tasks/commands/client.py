"""``run FILE``, ``pause RUN`` and so on: a program's way through the API of a running Touchstone."""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import click

from tasks.conversation import checked
from tasks.errors import InvalidInput, Unavailable
from tasks.files.read import read
from tasks.states import RunAction

POLL_SECONDS = 0.5
TIMEOUT = 60.0
NO_CONTENT = 204


def call(url: str, body: IO[bytes] | None = None) -> Any:
    """One request to the API, a POST where there is a ``body``, which is sent as it is read.

    Raises `InvalidInput` with the server's message, or `Unavailable`.
    """
    headers = {"Content-Type": "application/octet-stream"}
    if body:
        headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
    return _open(urllib.request.Request(url, body, headers))


def act(base: str, run_id: str, action: RunAction) -> None:
    """Pause, resume, cancel or retry a run and say what has become of it."""
    _say(_post(f"{_url(base, run_id)}/{action}", {}))


def prioritise(base: str, run_id: str, priority: int) -> None:
    """Change the priority of a run and say what has become of it."""
    _say(_post(f"{_url(base, run_id)}/priority", {"priority": priority}))


def delete(base: str, run_id: str) -> None:
    """Delete a run with all its rows."""
    _open(urllib.request.Request(_url(base, run_id), method="DELETE"))
    click.echo(f"run {run_id} is deleted")


def _url(base: str, run_id: str) -> str:
    return f"{base}/api/runs/{urllib.parse.quote(run_id, safe='')}"


def _say(run: Any) -> None:
    counts = ", ".join(f"{number} {name}" for name, number in run["counts"].items())
    click.echo(f"run {run['id']} is {run['state']}, priority {run['priority']}: {counts}")


def _post(url: str, body: Mapping[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    return _open(urllib.request.Request(url, json.dumps(dict(body)).encode(), headers))


def _open(request: urllib.request.Request) -> Any:
    url = request.full_url
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response) if response.status != NO_CONTENT else None
    except urllib.error.HTTPError as error:
        try:
            message = json.load(error)["error"]["message"]
        except (ValueError, KeyError):
            message = f"{url} answered {error.code}; is this a Touchstone?"
        raise InvalidInput(message) from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Unavailable(f"{url} does not answer ({error}); start './touchstone up' or give --url.") from None


def run_file(base: str, file: Path, models: list[str], samples: int) -> None:
    """Submit the prompts of a file, show a bar with rate and time left, then a table."""
    query = urllib.parse.urlencode({"name": file.name, "samples": samples, "models": models}, doseq=True)
    try:
        with file.open("rb") as stream:
            for _ in checked(read(stream, file.name)):
                pass  # what is wrong with the file is said before anything of it is sent
            stream.seek(0)
            run = call(f"{base}/api/runs/file?{query}", stream)
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be read ({error.strerror}).") from None
    click.echo(f"{base}{run['url']}")
    _follow(f"{base}/api/runs/{run['id']}")


def _say_what_blocks(state: Any, told: set[tuple[str, str]]) -> None:
    """Say once of each model why it cannot go on; ``told`` holds what has been said."""
    for model in state["models"]:
        wait = model["waits"]
        if wait and wait["blocked"] and (reason := (model["name"], wait["message"])) not in told:
            told.add(reason)
            click.echo(f"\n{model['name']} waits: {wait['message']} The run's page lets it fail.", err=True)


def _follow(url: str) -> None:
    started = time.monotonic()
    state = call(url)
    told: set[tuple[str, str]] = set()
    with click.progressbar(length=state["counts"]["total"], show_eta=True, show_pos=True) as bar:
        while True:
            ended = state["counts"]["total"] - state["counts"]["pending"]
            rate = ended / max(time.monotonic() - started, 1e-3)
            bar.label = f"{rate:.1f}/s"
            bar.update(ended - bar.pos)
            _say_what_blocks(state, told)
            if state["state"] in ("done", "cancelled"):
                break
            time.sleep(POLL_SECONDS)
            state = call(url)
    click.echo(f"{'model':24} {'done':>8} {'failed':>8} {'cancelled':>10}")
    for model in state["models"]:
        counts = model["counts"]
        click.echo(f"{model['name']:24} {counts['done']:8} {counts['failed']:8} {counts['cancelled']:10}")
