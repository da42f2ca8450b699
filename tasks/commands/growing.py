"""Commands that look at a file, and those that add something to a run that is there."""

import sys
from pathlib import Path
from typing import Any

import click

from tasks.commands.group import EXIT_REFUSED, main
from tasks.commands.handing_in import hand_in, refuse_problems, tell
from tasks.commands.http import Api, run_path
from tasks.commands.options import names, of_reading, of_run, of_server, reading_of
from tasks.commands.runs import FILE, say_state
from tasks.errors import InvalidInput
from tasks.run_schema import MAX_SAMPLES

SHOWN_LINES = 20


@main.command()
@click.argument("file", type=FILE)
@of_server
@of_reading
def preview(file: Path, url: str, **given: Any) -> None:
    """Show what FILE holds and what is wrong with it; ends with 1 where something is. Queues nothing."""
    found = hand_in(Api(url), file, reading_of(given))["preview"]
    tell(found, file.name)
    sys.exit(EXIT_REFUSED if found["problem_count"] or not found["prompts"] else 0)


@main.command("add-models")
@of_run
@click.option("--models", required=True, callback=names, help="Names, separated by commas.")
def add_models(run_id: str, url: str, models: list[str]) -> None:
    """Put the prompts of RUN to further models, too."""
    _add(Api(url), run_id, "models", {"models": models})


@main.command("add-samples")
@of_run
@click.argument("number", type=click.IntRange(1, MAX_SAMPLES))
def add_samples(run_id: str, url: str, number: int) -> None:
    """Let each model of RUN answer each prompt NUMBER times more."""
    _add(Api(url), run_id, "samples", {"samples": number})


@main.command("add-prompts")
@of_run
@click.argument("file", type=FILE)
@of_reading
def add_prompts(run_id: str, url: str, file: Path, **given: Any) -> None:
    """Put the prompts of FILE to the models of RUN, too."""
    api, reading = Api(url), reading_of(given)
    upload = hand_in(api, file, reading)
    tell(upload["preview"], file.name)
    refuse_problems(upload["preview"], file.name, "leave_out" in reading)
    _add(api, run_id, "prompts", {"upload": upload["id"], "reading": reading})


@main.command("import-answers")
@of_run
@click.argument("file", type=FILE)
@click.option("--label", help="Who gave the answers [as FILE says].")
def import_answers(run_id: str, url: str, file: Path, label: str | None) -> None:
    """Put answers that were made elsewhere beside those of RUN."""
    api = Api(url)
    upload = api.send("uploads", file, name=file.name)
    named = {"label": label} if label else {}
    found = api.post(run_path(run_id, "answers"), {"upload": upload["id"], **named})
    if found["unmatched_count"]:
        shown = ", ".join(map(str, found["unmatched"][:SHOWN_LINES]))
        more = ", …" if found["unmatched_count"] > SHOWN_LINES else ""
        click.echo(f"{found['unmatched_count']} answers belong to no prompt of the run: lines {shown}{more}", err=True)
    for problem in found.get("problems", ())[:SHOWN_LINES]:
        click.echo(f"line {problem['line']}: {problem['reason']} {problem['remedy']}", err=True)
    if not found["taken"]:
        raise InvalidInput(f"No answer of {file.name} belongs to a prompt of run {run_id}.")
    click.echo(f"{found['taken']} answers are taken as {', '.join(found['columns'])}")


@main.command()
@of_run
@click.argument("other")
def merge(run_id: str, url: str, other: str) -> None:
    """Take the answers of the run OTHER, of the same prompts, into RUN."""
    _add(Api(url), run_id, "merge", {"run": other})


def _add(api: Api, run_id: str, what: str, body: dict[str, Any]) -> None:
    api.post(run_path(run_id, what), body)
    say_state(api.get(run_path(run_id)))
