"""The command line's group of commands and what they share."""

import logging
import sys
from typing import Any

import click

from tasks.errors import ConfigurationError, ModelError, TouchstoneError, Unavailable
from tasks.host.supervisor import EXIT_CANNOT_START, EXIT_TRY_AGAIN

DEFAULT_URL = "http://127.0.0.1:8000"
EXIT_REFUSED = 1  # what was asked for cannot be done as it was asked for


class Commands(click.Group):
    """Turns an error that was raised on purpose into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TouchstoneError as error:
            click.echo(f"touchstone: {error.message}", err=True)
            sys.exit(_exit_code(error))


def _exit_code(error: TouchstoneError) -> int:
    if isinstance(error, Unavailable):
        return EXIT_TRY_AGAIN
    return EXIT_CANNOT_START if isinstance(error, ConfigurationError | ModelError) else EXIT_REFUSED


@click.group(cls=Commands)
def main() -> None:
    """Touchstone (试金石): compare language models on your own hardware."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
