"""Commands that submit a run, follow it and act on it, through the API of a running Touchstone."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tasks.commands.exporting import check_place, download, format_of
from tasks.commands.following import exit_code, follow, tell_outcome
from tasks.commands.group import main
from tasks.commands.handing_in import hand_in, refuse_problems, tell
from tasks.commands.http import Api, run_path
from tasks.commands.options import names, of_reading, of_run, of_server, reading_of, settings
from tasks.commands.words import model_words, span
from tasks.errors import InvalidInput
from tasks.run_schema import MAX_DEADLINE, MAX_PRIORITY, MAX_SAMPLES
from tasks.states import RunAction, RunState

MAX_LISTED = 1000
STATES = [str(state) for state in RunState if state is not RunState.DELETED]
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@main.command()
@click.argument("file", type=FILE)
@of_server
@of_reading
@click.option("--models", callback=names, help="Names, separated by commas [all].")
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1, MAX_SAMPLES))
@click.option(
    "--set",
    "sampling",
    multiple=True,
    callback=settings,
    metavar="NAME=VALUE",
    help="A decoding setting, such as temperature=0.2. May be given several times.",
)
@click.option("--deadline", type=click.FloatRange(0, MAX_DEADLINE, min_open=True), help="Seconds for one completion.")
@click.option("--fresh", is_flag=True, help="Take no stored answers.")
@click.option("--name", "set_name", help="A name for this set of prompts.")
@click.option("--title", help="The title of the run [name of FILE].")
@click.option("--yes", is_flag=True, help="Do not ask before the run is queued.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the results to this file in the end.")
@click.option("--out-format", help="The format of that file [by its ending].")
def run(file: Path, url: str, yes: bool, out: Path | None, out_format: str | None, **given: Any) -> None:
    """Put the prompts of FILE to the models, show how far they are, then a table.

    Ends with 0 when all is done, 3 when some completions failed, 1 when FILE cannot be taken.
    """
    format_ = None
    if out:
        format_ = format_of(out, out_format)
        check_place(out)
    api, reading = Api(url), reading_of(given)
    upload = hand_in(api, file, reading)
    preview = upload["preview"]
    tell(preview, file.name)
    refuse_problems(preview, file.name, "leave_out" in reading)
    asked = {name: given[name] for name in ("models", "samples", "sampling") if given[name]}
    _tell_estimate(api, preview, asked)
    if not yes and sys.stdin.isatty() and not click.confirm("Queue it?", default=True):
        raise InvalidInput("Nothing was queued.")
    options = {name: given[name] for name in ("deadline", "fresh", "set_name") if given[name]}
    body = asked | options | {"upload": upload["id"], "reading": reading, "title": given["title"] or file.name}
    made = api.post("runs", body)
    click.echo(f"{api.base}{made['url']}")
    _watch(api, made["id"], out, format_)


@main.command("follow")
@of_run
def follow_command(run_id: str, url: str) -> None:
    """Show how far RUN is until it has ended, then a table."""
    _watch(Api(url), run_id, None, None)


@main.command("runs")
@of_server
@click.option("--search", help="Words of the title.")
@click.option("--state", type=click.Choice(STATES))
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, MAX_LISTED))
@click.option("--after", help="What the list before named as the following page.")
def list_runs(url: str, **query: Any) -> None:
    """List the runs, newest first."""
    found = Api(url).get("runs", **query)
    for each in found["runs"]:
        counts, created = each["counts"], time.strftime("%Y-%m-%d %H:%M", time.localtime(each["created"]))
        done = f"{counts['done']}/{counts['total']}"
        click.echo(f"{each['id']}  {created}  {each['state']:9} {done:>15}  {_names(each['models'])}  {each['title']}")
    if found["next"]:
        click.echo(f"more: --after {found['next']}", err=True)


@main.command()
@of_run
def pause(run_id: str, url: str) -> None:
    """Start nothing more of RUN; what has begun is done to its end."""
    _act(url, run_id, RunAction.PAUSE)


@main.command()
@of_run
def resume(run_id: str, url: str) -> None:
    """Let RUN, which is paused, go on."""
    _act(url, run_id, RunAction.RESUME)


@main.command()
@of_run
def cancel(run_id: str, url: str) -> None:
    """End RUN; partial text is kept."""
    _act(url, run_id, RunAction.CANCEL)


@main.command()
@of_run
def retry(run_id: str, url: str) -> None:
    """Do again what failed of RUN."""
    _act(url, run_id, RunAction.RETRY)


@main.command(context_settings={"ignore_unknown_options": True})
@of_run
@click.argument("priority", type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY))
def priority(run_id: str, priority: int, url: str) -> None:
    """Let RUN go before (above 0) or after (below 0) others of its kind."""
    say_state(Api(url).post(run_path(run_id, "priority"), {"priority": priority}))


@main.command()
@of_run
def delete(run_id: str, url: str) -> None:
    """Delete RUN with all its answers and scores."""
    Api(url).delete(run_path(run_id))
    click.echo(f"run {run_id} is deleted")


def say_state(state: Mapping[str, Any]) -> None:
    """Say what has become of a run."""
    counts = ", ".join(f"{number} {name}" for name, number in state["counts"].items())
    click.echo(f"run {state['id']} is {state['state']}, priority {state['priority']}: {counts}")


def _act(url: str, run_id: str, action: RunAction) -> None:
    say_state(Api(url).post(run_path(run_id, action), {}))


def _watch(api: Api, run_id: str, out: Path | None, format_: str | None) -> None:
    state = follow(api, run_id)
    tell_outcome(api, state)
    if out and format_:
        download(api, run_id, format_, [], str(out))
    sys.exit(exit_code(state))


def _tell_estimate(api: Api, preview: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    lengths = preview.get("lengths") or {}
    estimate = api.post("estimate", {**asked, "prompts": preview["prompts"], "lengths": lengths})
    known = estimate["low"] is not None
    click.echo(f"it will take {span(estimate['low'], estimate['high'])}" if known else "how long it takes is not known")
    for model in estimate["models"]:
        click.echo(f"  {model_words(model)}")


def _names(models: Sequence[Any]) -> str:
    return ", ".join(model if isinstance(model, str) else model["name"] for model in models)
