"""Start a worker: ``python -m worker --model NAME [--cores 0,1]``."""

import argparse
import importlib
import logging
import sys

from tasks.errors import ConfigurationError, TouchstoneError, Unavailable
from tasks.host.supervisor import EXIT_CANNOT_START, EXIT_TRY_AGAIN
from tasks.registry import LocalModel, ModelEntry, Registry
from tasks.settings import Settings
from worker import import_stub
from worker.backends.protocol import Backend, Report
from worker.process import WorkerProcess


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cores", default="", help="core numbers, separated by commas")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {options.model}: %(message)s", datefmt="%H:%M:%S")
    try:
        settings = Settings.from_environment()
        entry = Registry.load(settings.models).get(options.model)
        WorkerProcess(entry, read_cores(options.cores), settings, open_backend).run()
    except TouchstoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_TRY_AGAIN if isinstance(error, Unavailable) else EXIT_CANNOT_START
    return 0


def open_backend(entry: ModelEntry, report: Report) -> Backend:
    """The backend of an entry. Torch is imported for our own engine only, once the worker has shown itself."""
    if isinstance(entry, LocalModel):
        import_stub.install()
        module = importlib.import_module("worker.backends.loading")
    else:
        module = importlib.import_module("worker.backends.openai")
    backend: Backend = module.open_backend(entry, report)
    return backend


def read_cores(text: str) -> tuple[int, ...]:
    """``0,1`` as numbers. Raises `ConfigurationError`."""
    parts = [part for part in text.split(",") if part]
    if not all(part.isdecimal() for part in parts):
        raise ConfigurationError(f"--cores is {text!r}; give core numbers such as 0,1.")
    return tuple(map(int, parts))


if __name__ == "__main__":
    sys.exit(main())
