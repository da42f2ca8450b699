"""One step of the benchmark of files, alone in a process so that its memory is that of the step."""

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.conversation import checked
from tasks.files.read import preview, read
from tasks.files.write import ExportFormat, export
from tasks.service import Service
from tasks.settings import Settings
from tasks.states import RunKind
from worker.bench.processes import peak_bytes


def look(file: str) -> dict[str, Any]:
    with Path(file).open("rb") as stream:
        seen = preview(stream, file)
    return {"prompts": seen.prompts, "problems": seen.problem_count}


def take_in(file: str) -> dict[str, Any]:
    with Path(file).open("rb") as stream:
        return {"prompts": sum(1 for _ in checked(read(stream, file)))}


def submit(file: str) -> dict[str, Any]:
    with Path(file).open("rb") as stream:
        run, _ = _service().submit(
            prompts=read(stream, file), models=["simulated-0"], sampling={}, owner="bench", kind=RunKind.BULK
        )
    return {"run": run.id, "prompts": run.prompts}


def grow(run_id: str) -> dict[str, Any]:
    run = _service().add_models(run_id, ["simulated-1"])
    return {"total": run.models["simulated-1"].total}


def write_out(run_id: str, format: str) -> dict[str, Any]:
    made = export(_service().ledger, run_id, ExportFormat(format), ["simulated-0"])
    return {"bytes": sum(map(len, made.pieces))}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "preview": look,
    "read": take_in,
    "submit": submit,
    "grow": grow,
    "export": write_out,
}


def _service() -> Service:
    return Service(Settings.from_environment())


def main(argv: list[str]) -> int:
    gc.freeze()  # as the server does when it starts
    before, started = peak_bytes(), time.monotonic()
    found = STEPS[argv[0]](*argv[1:])
    measured = {"seconds": round(time.monotonic() - started, 2), "bytes_above_start": peak_bytes() - before}
    sys.stdout.write(json.dumps(found | measured) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
