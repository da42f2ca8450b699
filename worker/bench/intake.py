"""Submit a file of prompts as the command line and the web do, and tell what it took.

``python -m worker.bench.intake FILE`` is a process of its own, so that its memory is that of the submission.
"""

import json
import sys
import time
from pathlib import Path

from tasks.files.read import Reading, read
from tasks.files.read.reading import FileFormat
from tasks.service import Service
from tasks.settings import Settings
from tasks.states import RunKind
from worker.bench.processes import peak_bytes


def main(argv: list[str]) -> int:
    service = Service(Settings.from_environment())
    before = peak_bytes()
    started = time.monotonic()
    with Path(argv[0]).open("rb") as stream:
        prompts = read(stream, argv[0], Reading(format=FileFormat.LINES))
        run, _ = service.submit(prompts=prompts, models=None, sampling={}, owner="bench", kind=RunKind.BULK)
    found = {"run": run.id, "seconds": round(time.monotonic() - started, 2)}
    memory = {"peak_rss_bytes": peak_bytes(), "rss_before_bytes": before}
    sys.stdout.write(json.dumps(found | memory) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
