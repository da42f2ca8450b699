"""The engine's benchmark in small, beside transformers' own ways: it runs, and what it prints is complete."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tasks.settings import ROOT
from worker.bench.engine_alone import quantiles
from worker.bench.generation import compare

SMALL = ["--random-weights", "gpt2:4m", "--requests", "6", "--concurrency", "3", "--new-tokens", "5", "--threads", "1"]
SMALL += ["--prompt-tokens", "7", "--rounds", "1", "--ignore-eos"]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "worker.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_engine_is_measured_beside_others() -> None:
    done = bench("engine", *SMALL, "--baseline", "pipeline", "generate", "generate_batch")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["tokens"] == 6 * 5 and found["prompt_tokens"] == 7
    assert found["tokens_per_second"] > 0 and found["requests_per_second"] > 0 and found["peak_rss_bytes"] > 0
    assert found["weight_bytes"] > 4e6 and found["cache_bytes"] > 0
    for name in ("ttft_seconds", "tpot_seconds"):
        assert 0 < found[name]["p50"] <= found[name]["p95"] <= found[name]["p99"]
    assert found["ratios"].keys() == found["baselines"].keys() == {"pipeline", "generate", "generate_batch"}
    assert all(ratio["least"] <= ratio["median"] <= ratio["most"] for ratio in found["ratios"].values())
    assert [run["tokens"] for run in found["baselines"].values()] == [30, 30, 30]
    assert found["run"]["model"] == "gpt2:4m" and found["run"]["threads"] == 1
    assert {"torch", "transformers", "python", "cores", "dtype", "native"} <= found["run"].keys()
    assert 0 < sum(found["step"][f"{part}_share"] for part in ("schedule", "model", "sample", "text")) <= 1.001


def test_a_program_that_is_not_installed_is_named() -> None:
    done = bench("engine", *SMALL, "--openvino", "nowhere")
    assert done.returncode == 1 and "pip install openvino-genai" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nowhere"], "holds no model"),
        (["--random-weights", "gpt2:4m", "--device", "cuda:99"], "device 'cuda:99' is not here"),
        (["--random-weights", "gpt2:4m", "--prompt-tokens", "5000"], "Shorten the prompt"),
        (["--random-weights", "gpt2:4m", "--vllm", "--vllm-python", "nowhere"], "Correct that path"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(arguments: list[str], words: str) -> None:
    done = bench("engine", "--requests", "1", "--concurrency", "1", "--rounds", "1", *arguments)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        [],
        ["engine", "--requests", "0", "--random-weights", "gpt2:4m"],
        ["engine", "--threads", "-3", "--model", "."],
    ],
)
def test_a_bad_command_says_what_there_is(arguments: list[str]) -> None:
    done = bench(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.strip()


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    class Scripted:
        environment: dict[str, Any] = {}  # noqa: RUF012

        def __init__(self, name: str, speeds: list[float]):
            self.name, self.speeds = name, [0.0, *speeds]

        def run(self) -> dict[str, Any]:
            return {"tokens_per_second": self.speeds.pop(0)}

    contestants = [Scripted("engine", [10.0, 20.0, 90.0]), Scripted("other", [5.0, 20.0, 10.0])]
    found = compare(contestants, 3, lambda line: None)  # type: ignore[arg-type]
    assert found["ratios"]["other"] == {"median": 2.0, "least": 1.0, "most": 9.0}
    assert found["tokens_per_second"] == 20.0 and found["baselines"]["other"]["tokens_per_second"] == 10.0


def test_quantiles_are_values_that_were_measured() -> None:
    assert quantiles([3.0, 1.0, 2.0]) == {"p50": 2.0, "p95": 3.0, "p99": 3.0} and quantiles([]) == {}
