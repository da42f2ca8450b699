"""One of those that are compared, in a process of its own: ``python -m worker.bench.contestant NAME LOAD``.

It makes itself ready and says so, then does the load once for every line it is given and answers each with a line of
JSON. Libraries that print are heard on standard error.
"""

import importlib
import json
import os
import sys
from typing import Any

from tasks.errors import TouchstoneError
from worker import import_stub as lean
from worker.bench.traffic import Load


def main() -> int:
    name, load = sys.argv[1], Load(**json.loads(sys.argv[2]))
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as answers:
        os.dup2(2, 1)
        try:
            if name == "engine":
                lean.install()  # as its worker does; the others are as they come
            measure = importlib.import_module("worker.bench.engine_alone")
            run = measure.measure_engine(load) if name == "engine" else _baseline(name)(load)
            answers.write(json.dumps(measure.environment()) + "\n")
            for _ in sys.stdin:
                answers.write(json.dumps(run() | {"peak_rss_bytes": measure.peak_rss()}) + "\n")
        except TouchstoneError as error:
            sys.stderr.write(f"{error.message}\n")
            return 1
    return 0


def _baseline(name: str) -> Any:
    return importlib.import_module("worker.bench.baselines").BASELINES[name]


if __name__ == "__main__":
    sys.exit(main())
