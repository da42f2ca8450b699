"""The command line: ``python -m tasks …`` (``./touchstone …``)."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tasks import doctor as checks
from tasks import embedded, remote
from tasks.errors import TouchstoneError, Unavailable
from tasks.ledger import Ledger
from tasks.migrate import migrate as migrate_ledger
from tasks.registry import Registry
from tasks.scorer import Scorer
from tasks.service import MAX_PRIORITY
from tasks.settings import Settings
from tasks.states import RunAction
from tasks.supervisor import EXIT_CANNOT_START, EXIT_TRY_AGAIN

DEFAULT_URL = "http://127.0.0.1:8000"


class Commands(click.Group):
    """Turns an error that was raised on purpose into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TouchstoneError as error:
            click.echo(f"touchstone: {error.message}", err=True)
            sys.exit(EXIT_TRY_AGAIN if isinstance(error, Unavailable) else EXIT_CANNOT_START)


@click.group(cls=Commands)
def main() -> None:
    """Touchstone (试金石): compare language models on your own hardware."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")


def with_places(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where data and models are."""
    data = click.option("--data", type=click.Path(path_type=Path), help="Folder for ledger and Redis [./data].")
    models = click.option("--models", type=click.Path(path_type=Path), help="Registry file [./models.toml].")
    return data(models(command))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@with_places
def up(host: str, port: int, data: Path | None, models: Path | None) -> None:
    """Start everything on this machine: Redis, web, a worker for each model."""
    given = {"TOUCHSTONE_DATA": data, "TOUCHSTONE_MODELS": models}
    chosen = {name: str(path.absolute()) for name, path in given.items() if path}
    embedded.up(Settings.from_environment({**os.environ, **chosen}), host, port)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--threads", default=48, show_default=True, type=click.IntRange(2, 512))
def web(host: str, port: int, threads: int) -> None:
    """Serve the pages and the API."""
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = ["--worker-class", "gthread", "--workers", "1", "--threads", str(threads), "--log-level", "warning"]
    stops = ["--graceful-timeout", "3", "--timeout", "60", "--no-control-socket"]
    argv = [sys.executable, "-m", "gunicorn", "web:create_app()", "--bind", bind, *options, *stops]
    os.execv(sys.executable, argv)


@main.command()
@click.option("--model", required=True, help="Name of a model in the registry.")
@click.option("--cores", default="", help="Core numbers to pin to, such as 0,1.")
def worker(model: str, cores: str) -> None:
    """Run one model; may run on any machine that reaches Redis and PostgreSQL."""
    os.execv(sys.executable, [sys.executable, "-m", "worker", "--model", model, "--cores", cores])


@main.command()
def scorer() -> None:
    """Run the light worker that scores completions and puts back lost work."""
    Scorer(Settings.from_environment()).run()


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--models", default="", help="Names, separated by commas [all].")
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1, 16))
@click.option("--url", default=DEFAULT_URL, show_default=True, envvar="TOUCHSTONE_URL")
def run(file: Path, models: str, samples: int, url: str) -> None:
    """Put the prompts of FILE (one a line, or blocks between lines of ---) to the models, with a progress bar."""
    remote.run_file(url, file, [name for name in models.split(",") if name], samples)


def of_run(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the option of a command that acts on one run."""
    url = click.option("--url", default=DEFAULT_URL, show_default=True, envvar="TOUCHSTONE_URL")
    return click.argument("run_id", metavar="RUN")(url(command))


@main.command()
@of_run
def pause(run_id: str, url: str) -> None:
    """Start nothing more of RUN; what has begun is done to its end."""
    remote.act(url, run_id, RunAction.PAUSE)


@main.command()
@of_run
def resume(run_id: str, url: str) -> None:
    """Let RUN, which is paused, go on."""
    remote.act(url, run_id, RunAction.RESUME)


@main.command()
@of_run
def cancel(run_id: str, url: str) -> None:
    """End RUN; partial text is kept."""
    remote.act(url, run_id, RunAction.CANCEL)


@main.command()
@of_run
def retry(run_id: str, url: str) -> None:
    """Do again what failed of RUN."""
    remote.act(url, run_id, RunAction.RETRY)


@main.command(context_settings={"ignore_unknown_options": True})
@of_run
@click.argument("priority", type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY))
def priority(run_id: str, priority: int, url: str) -> None:
    """Let RUN go before (above 0) or after (below 0) others of its kind."""
    remote.prioritise(url, run_id, priority)


@main.command()
@of_run
def delete(run_id: str, url: str) -> None:
    """Delete RUN with all its answers and scores."""
    remote.delete(url, run_id)


@main.command()
def models() -> None:
    """List the registry, and which models have a worker."""
    settings = Settings.from_environment()
    ledger = Ledger(settings)
    for spec in Registry.load(settings.models).models.values():
        ready = ledger.workers.ready(spec.name)
        click.echo(
            f"{spec.name:24} {spec.device:8} {spec.dtype:9} {ready} ready  {spec.label['zh']} · {spec.label['en']}"
        )


@main.command()
@click.option("--revision", default="head", show_default=True)
def migrate(revision: str) -> None:
    """Bring the ledger's tables up to date."""
    migrate_ledger(Settings.from_environment(), revision)
    click.echo(f"The ledger is at {revision}.")


@main.command()
def doctor() -> None:
    """Check Redis, ledger, models, cores and disk, and say what to do."""
    findings = checks.examine(Settings.from_environment())
    for finding in findings:
        click.echo(f"{'ok ' if finding.ok else 'BAD'} {finding.subject}: {finding.text}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


if __name__ == "__main__":
    main(prog_name="touchstone")
