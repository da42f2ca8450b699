"""Measure a part of the worker: ``python -m worker.bench COMMAND …``."""

import importlib
import sys

# By name, so that one command does not load what only another needs.
COMMANDS = {
    "architectures": "worker.bench.architectures",
    "engine": "worker.bench.generation",
    "files": "worker.bench.files",
    "estimate": "worker.bench.estimate",
    "queue": "worker.bench.queue",
    "server": "worker.bench.served",
    "system": "worker.bench.system",
}


def main(argv: list[str]) -> int:
    """Run the command that ``argv`` begins with; 2 when there is none of that name."""
    if not argv or argv[0] not in COMMANDS:
        given = repr(argv[0]) if argv else "nothing"
        sys.stderr.write(f"python -m worker.bench takes one of {', '.join(COMMANDS)}, not {given}.\n")
        return 2
    return int(importlib.import_module(COMMANDS[argv[0]]).main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
