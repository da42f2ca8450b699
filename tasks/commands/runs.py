"""Commands that submit a run and act on one, through the API of a running Touchstone."""

from collections.abc import Callable
from pathlib import Path

import click

from tasks.commands import client
from tasks.commands.group import DEFAULT_URL, main
from tasks.run_schema import MAX_PRIORITY, MAX_SAMPLES
from tasks.states import RunAction


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--models", default="", help="Names, separated by commas [all].")
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1, MAX_SAMPLES))
@click.option("--url", default=DEFAULT_URL, show_default=True, envvar="TOUCHSTONE_URL")
def run(file: Path, models: str, samples: int, url: str) -> None:
    """Put the prompts of FILE to the models, with a progress bar.

    FILE holds a prompt a line, blocks between lines of ---, or JSON objects, one a line, with conversations as the API
    takes them.
    """
    client.run_file(url, file, [name for name in models.split(",") if name], samples)


def of_run(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the option of a command that acts on one run."""
    url = click.option("--url", default=DEFAULT_URL, show_default=True, envvar="TOUCHSTONE_URL")
    return click.argument("run_id", metavar="RUN")(url(command))


@main.command()
@of_run
def pause(run_id: str, url: str) -> None:
    """Start nothing more of RUN; what has begun is done to its end."""
    client.act(url, run_id, RunAction.PAUSE)


@main.command()
@of_run
def resume(run_id: str, url: str) -> None:
    """Let RUN, which is paused, go on."""
    client.act(url, run_id, RunAction.RESUME)


@main.command()
@of_run
def cancel(run_id: str, url: str) -> None:
    """End RUN; partial text is kept."""
    client.act(url, run_id, RunAction.CANCEL)


@main.command()
@of_run
def retry(run_id: str, url: str) -> None:
    """Do again what failed of RUN."""
    client.act(url, run_id, RunAction.RETRY)


@main.command(context_settings={"ignore_unknown_options": True})
@of_run
@click.argument("priority", type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY))
def priority(run_id: str, priority: int, url: str) -> None:
    """Let RUN go before (above 0) or after (below 0) others of its kind."""
    client.prioritise(url, run_id, priority)


@main.command()
@of_run
def delete(run_id: str, url: str) -> None:
    """Delete RUN with all its answers and scores."""
    client.delete(url, run_id)
