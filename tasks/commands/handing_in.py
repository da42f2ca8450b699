"""Files on their way in: handed in, looked at, and told of in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tasks.commands.http import Api
from tasks.errors import InvalidInput

SHOWN_CHARACTERS = 60
SHOWN_PROMPTS = 3


def hand_in(api: Api, file: Path, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Upload a file of prompts; returns the upload with its preview, read as ``reading`` says.

    Raises `InvalidInput` for a file that cannot be read at all.
    """
    upload: dict[str, Any] = api.send("uploads", file, name=file.name)
    if reading:
        upload = api.post(f"uploads/{upload['id']}/preview", reading)
    if upload["preview"] is None:
        raise InvalidInput(f"{upload['problem']['message']} Nothing was queued.")
    return upload


def tell(preview: Mapping[str, Any], name: str) -> None:
    """Show what a file holds: how it is read, its columns and first prompts, and every problem that is listed."""
    how = _how(preview["reading"], preview.get("guessed", ()))
    click.echo(f"{name}: {preview['prompts']} prompts{f', {how}' if how else ''}")
    if preview.get("columns"):
        click.echo(f"columns: {', '.join(preview['columns'])}")
    for prompt in preview.get("first", ())[:SHOWN_PROMPTS]:
        click.echo(f"  {_short(_text(prompt))}")
    for note in preview.get("notes", ()):
        click.echo(f"note: {note}")
    for problem in preview.get("problems", ()):
        click.echo(f"line {problem['line']}: {problem['reason']} {problem['remedy']}", err=True)
    if (more := preview["problem_count"] - len(preview.get("problems", ()))) > 0:
        click.echo(f"and {more} more lines with problems", err=True)


def refuse_problems(preview: Mapping[str, Any], name: str, leave_out: bool) -> None:
    """Raise `InvalidInput` for a file that cannot be taken as it is."""
    if preview["problem_count"] and not leave_out:
        problem = f"{preview['problem_count']} lines of {name} cannot be taken"
        raise InvalidInput(f"{problem}; mend them, or leave them out with --leave-out. Nothing was queued.")
    if not preview["prompts"]:
        raise InvalidInput(f"{name} holds no prompt that can be taken. Nothing was queued.")


def _how(reading: Mapping[str, Any], guessed: Sequence[str]) -> str:
    said = []
    for key in ("format", "encoding", "separator"):
        if value := reading.get(key):
            shown = {"\t": "tab"}.get(value, value)
            said.append(f"{key} {shown}{' (guessed)' if key in guessed else ''}")
    columns = [f"{what} from {name!r}" for what, name in (reading.get("columns") or {}).items() if name]
    if columns:
        said.append(", ".join(columns) + (" (guessed)" if "columns" in guessed else ""))
    return ", ".join(said)


def _text(prompt: Mapping[str, Any]) -> str:
    if said := prompt.get("prompt") or prompt.get("text"):
        return str(said)
    messages = prompt.get("messages") or [{}]
    return str(messages[-1].get("content", ""))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"
