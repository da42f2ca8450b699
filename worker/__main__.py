"""Start a worker: ``python -m worker --model NAME [--cores 0,1]``."""

import argparse
import importlib
import logging
import sys

from tasks.errors import ConfigurationError, TouchstoneError, Unavailable
from tasks.host.supervisor import EXIT_CANNOT_START, EXIT_TRY_AGAIN
from tasks.registry import ModelSpec, Registry
from tasks.settings import Settings
from worker import import_stub as lean
from worker.backends.loaded import LoadedModel
from worker.process import WorkerProcess


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cores", default="", help="core numbers, separated by commas")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {options.model}: %(message)s", datefmt="%H:%M:%S")
    try:
        settings = Settings.from_environment()
        spec = Registry.load(settings.models).get(options.model)
        WorkerProcess(spec, read_cores(options.cores), settings, load).run()
    except TouchstoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_TRY_AGAIN if isinstance(error, Unavailable) else EXIT_CANNOT_START
    return 0


def load(spec: ModelSpec) -> LoadedModel:
    """`worker.backends.local.load`, with torch imported no sooner than the worker has shown itself."""
    lean.install()
    loaded: LoadedModel = importlib.import_module("worker.backends.local").load(spec)
    return loaded


def read_cores(text: str) -> tuple[int, ...]:
    """``0,1`` as numbers. Raises `ConfigurationError`."""
    parts = [part for part in text.split(",") if part]
    if not all(part.isdecimal() for part in parts):
        raise ConfigurationError(f"--cores is {text!r}; give core numbers such as 0,1.")
    return tuple(map(int, parts))


if __name__ == "__main__":
    sys.exit(main())
