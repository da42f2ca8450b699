"""The benchmark of the whole way in small: it runs to its end, its JSON is complete, and every completion is there."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tasks.errors import ConfigurationError
from tasks.host.redis_server import find_binary
from tasks.settings import ROOT
from tests.conftest import require
from tests.postgres import find_binaries

PROMPTS = 40


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "worker.bench", "system", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_whole_is_measured_beside_the_engine(database: str) -> None:
    require(database == "sqlite" or find_binaries() is not None, "PostgreSQL")
    try:
        find_binary()
    except ConfigurationError:
        require(False, "redis-server")
    small = ["--prompts", str(PROMPTS), "--new-tokens", "8", "--slots", "8", "--threads", "1", "--rounds", "2"]
    done = bench("--model", "poet-small", "--dtype", "float32", "--temperature", "0", "--database", database, *small)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["system", "engine"] * 2
    found: dict[str, Any] = json.loads(lines[-1])
    assert found["what"] == "system" and found["run"]["model"] == "poet-small"
    assert (found["run"]["requests"], found["run"]["concurrency"], found["run"]["threads"]) == (PROMPTS, 8, 1)
    assert found["run"]["database"].startswith(database) and found["run"]["dtype"] == "float32"
    assert {"torch", "transformers", "celery", "redis", "python", "device_name"} <= found["run"].keys()
    whole, alone = found["rounds"]["system"], found["rounds"]["engine"]
    assert len(whole) == len(alone) == 2
    for one, other in zip(whole, alone, strict=True):
        assert (one["completions"], one["failed"]) == (PROMPTS, 0)
        # Greedy in float32: the same prompts give the same tokens wherever they are made.
        assert one["tokens"] == other["tokens"] > 0 and one["prompt_tokens"] == other["prompt_tokens"]
        assert one["steady_tokens_per_second"] > one["tokens_per_second"] > 0
        assert 0 < one["mean_in_flight"] <= 8 and one["scored_seconds"] > one["submit_seconds"] > 0
        assert one["cpu_seconds"].keys() == {"scorer", "worker"}
    assert found["system"] in whole and found["engine"] in alone
    for ratio in found["ratios"].values():
        assert 0 < ratio["least"] <= ratio["median"] <= ratio["most"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "one of the arguments --model --random-weights is required"),
        (["--model", "nobody"], 3, "There is no model 'nobody'"),
        (["--model", "poet-small", "--prompts", "0"], 2, "'0' is no whole number from 1 on"),
        (["--model", "poet-small", "--database", "mysql://x/y"], 3, "SQLite or PostgreSQL"),
    ],
)
def test_a_wrong_command_gets_one_clear_line(arguments: list[str], status: int, message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == status and message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
