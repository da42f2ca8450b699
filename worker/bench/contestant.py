"""One of those that are compared, in a process of its own: ``python -m worker.bench.contestant NAME LOAD``.

It makes itself ready and says so, then does the load once for every line it is given and answers each with a line of
JSON. Libraries that print are heard on standard error.
"""

import json
import os
import sys

from worker.bench.baselines import BASELINES, NotInstalled
from worker.bench.load import Load
from worker.bench.measure import environment, measure_engine, peak_rss

EXIT_NOT_INSTALLED = 2


def main() -> int:
    name, load = sys.argv[1], Load(**json.loads(sys.argv[2]))
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as answers:
        os.dup2(2, 1)
        try:
            run = measure_engine(load) if name == "engine" else BASELINES[name](load)
        except NotInstalled as error:
            sys.stderr.write(f"{error}\n")
            return EXIT_NOT_INSTALLED
        answers.write(json.dumps(environment()) + "\n")
        for _ in sys.stdin:
            answers.write(json.dumps(run() | {"peak_rss_bytes": peak_rss()}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
