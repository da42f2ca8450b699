"""Commands that run processes: everything at once, or one of them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from tasks.commands.group import main
from tasks.host.up import up as run_all
from tasks.queue.scorer import Scorer
from tasks.settings import Settings


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
    run_all(Settings.from_environment({**os.environ, **chosen}), host, port)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--threads", default=48, show_default=True, type=click.IntRange(2, 512))
def web(host: str, port: int, threads: int) -> None:
    """Serve the pages and the API."""
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = ["--worker-class", "gthread", "--workers", "1", "--threads", str(threads), "--log-level", "warning"]
    stops = ["--graceful-timeout", "3", "--timeout", "60", "--no-control-socket"]
    server = [sys.executable, "-m", "gunicorn", "--config", "python:web.serving", "web:create_app()"]
    argv = [*server, "--bind", bind, *options, *stops]
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
