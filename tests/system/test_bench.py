"""The queue's benchmark in small: it runs to its end, its JSON is complete, and nothing is lost or done twice."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tasks.settings import ROOT
from tests.conftest import require
from tests.postgres import find_binaries
from worker.bench.simulated_workers import shares

SMALL = [
    "--prompts",
    "300",
    "--models",
    "2",
    "--workers",
    "2",
    "5",
    "--load",
    "400",
    "--chunk",
    "16",
    "--characters",
    "10",
]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "worker.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_queue_is_measured_and_loses_nothing(database: str) -> None:
    require(database == "sqlite" or find_binaries() is not None, "PostgreSQL")
    done = bench("queue", "--database", database, *SMALL)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["environment"]["database"].startswith(database)
    assert {"date", "cores", "python", "celery", "kombu", "redis", "sqlalchemy"} <= found["environment"].keys()
    assert (found["submit"]["prompts"], found["submit"]["models"]) == (300, 2)
    assert found["submit"]["seconds"] > 0 and found["submit"]["peak_rss_bytes"] > 0
    assert {"run", "batches", "models", "benchmark", "report"} <= found["pages"].keys()
    assert all(times["median_ms"] > 0 for times in found["pages"].values())
    assert [(row["mode"], row["workers"]) for row in found["work"]] == [
        ("ledger", 2),
        ("celery", 2),
        ("ledger", 5),
        ("celery", 5),
    ]
    for row in found["work"]:
        assert (row["completions"], row["chunks"], row["lost"], row["duplicated"]) == (400, 26, 0, 0)
        assert row["completions_per_second"] > 0 and row["database_bytes"] > 0
        assert (row["score_messages"] > 0) == (row["mode"] == "celery")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nothing"], 2, "takes one of"),
        (["queue", "--workers", "1", "--models", "2"], 2, "one worker for each"),
        (["queue", "--prompts", "many"], 2, "'many' is not a whole number"),
        (["queue", "--database", "mysql://x/y"], 3, "SQLite or PostgreSQL"),
    ],
)
def test_a_wrong_command_gets_one_clear_line(arguments: list[str], status: int, message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == status and message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_workers_are_spread_evenly() -> None:
    assert shares(10, 4) == [3, 3, 2, 2] and shares(2, 3) == [1, 1] and sum(shares(1000, 3)) == 1000
