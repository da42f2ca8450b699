"""From the API to stored completions and back, and through the deaths of every child."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.service import MAX_CHUNK
from tasks.settings import ROOT
from tests.system.conftest import Running, start

PROMPT = "写一首关于春天的诗"


def test_a_prompt_goes_to_both_models_and_is_stored(running: Running) -> None:
    started = time.monotonic()
    status, run = running.call("/api/runs", {"prompts": [PROMPT]})
    assert status == 202 and run["url"] == f"/runs/{run['id']}"
    assert time.monotonic() - started < 5
    state = running.wait(run["id"])
    assert state["counts"] == {"total": 2, "done": 2, "failed": 0, "cancelled": 0, "pending": 0}
    completions = running.call(f"/api/runs/{run['id']}/completions")[1]["completions"]
    assert [row["model"] for row in completions] == ["poet-large", "poet-small"]
    for row in completions:
        assert len(row["text"]) >= 20 and row["finish_reason"] == "stop"
        phases = row["phases"]
        assert 0 < phases["ttft"] <= phases["service"] <= phases["e2e"]


def test_scores_follow_the_answers(running: Running) -> None:
    run = running.call("/api/runs", {"prompts": [PROMPT]})[1]["id"]
    running.wait(run)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with_scores = page(running, f"/runs/{run}")
        if 'data-figure="radar"' in with_scores:
            return
        time.sleep(0.3)
    pytest.fail("the run has no radar")


def page(running: Running, path: str) -> str:
    with urllib.request.urlopen(running.url + path, timeout=30) as response:
        return str(response.read().decode())


@pytest.mark.parametrize(
    "victim", ["worker --model poet-large", "worker --model poet-small", "tasks web", "scorer", "redis"]
)
def test_a_child_that_is_killed_costs_nothing(running: Running, victim: str) -> None:
    word = {"tasks web": "gunicorn"}.get(victim, victim)
    run = running.call("/api/runs", {"prompts": [PROMPT] * 500, "fresh": True})[1]["id"]
    running.wait_until_some_are_done(run)
    killed = running.child(word)
    os.kill(killed, signal.SIGKILL)
    # A web whose parent was killed answers a moment longer: what counts is the one that comes after.
    running.wait_for_another(word, killed)
    state = running.wait(run, 120)
    assert state["counts"]["done"] == 1000
    rows = running.call(f"/api/runs/{run}/completions?limit=1000")[1]["completions"]
    assert len({(row["model"], row["idx"]) for row in rows}) == len(rows) == 1000


def test_cancel_ends_a_run_and_adds_nothing_later(running: Running) -> None:
    run = running.call("/api/runs", {"prompts": [PROMPT] * 2000, "fresh": True})[1]["id"]
    running.wait_until_some_are_done(run)
    running.call(f"/api/runs/{run}/cancel", {})
    state = running.wait(run, 15)
    assert state["state"] == "cancelled" and state["counts"]["cancelled"] > 0 and state["counts"]["done"] > 0
    time.sleep(5)
    assert running.call(f"/api/runs/{run}")[1]["counts"] == state["counts"]


def test_the_same_key_is_the_same_run(running: Running) -> None:
    key = {"Idempotency-Key": "spring"}
    first = running.call("/api/runs", {"prompts": [PROMPT]}, key)
    assert running.call("/api/runs", {"prompts": [PROMPT]}, key) == first
    assert running.call("/api/runs", {"prompts": ["别的"]}, key)[0] == 409


def test_no_prompt_stands_in_redis(running: Running) -> None:
    secret = "这是一句不该出现的话"
    run = running.call("/api/runs", {"prompts": [secret] * 30})[1]["id"]
    running.wait(run)
    for file in (running.data / "redis").rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes()


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(tmp_path, "--port", str(taken.getsockname()[1]))
        said = process.communicate(timeout=30)[1].decode().strip()
    assert process.returncode != 0
    assert "choose another with --port" in said and len(said.splitlines()) == 1


def test_a_broken_registry_is_one_clear_line(tmp_path: Path) -> None:
    broken = tmp_path / "models.toml"
    broken.write_text('[[model]]\nname = "a"\nsource = "."\ndevise = "cpu"\n')
    process = start(tmp_path / "data", "--models", str(broken))
    said = process.communicate(timeout=30)[1].decode().strip()
    assert process.returncode != 0
    assert "models.toml:4" in said and "did you mean 'device'?" in said and len(said.splitlines()) == 1


def test_a_second_up_on_the_same_data_is_refused(running: Running) -> None:
    process = start(running.data, "--port", str(int(running.url.rsplit(":", 1)[1]) % 60000 + 1025))
    said = process.communicate(timeout=30)[1].decode()
    assert process.returncode != 0 and "already running" in said


def tasks(running: Running, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command of README, run beside the running `up`."""
    environment = os.environ | {"TOUCHSTONE_DATA": str(running.data)}
    argv = [sys.executable, "-m", "tasks", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_file_is_run_from_the_shell(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("写一首关于月亮的诗\n\n写一首关于酒的诗\n", encoding="utf-8")
    done = tasks(running, "run", str(file), "--models", "poet-large,poet-small", "--url", running.url)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:5] for line in done.stdout.splitlines()[-2:]] == [
        ["poet-large", "2", "0", "0", "0"],
        ["poet-small", "2", "0", "0", "0"],
    ]
    refused = tasks(running, "run", str(file), "--models", "nobody", "--url", running.url)
    assert refused.returncode != 0 and "poet-large" in refused.stderr


def test_models_doctor_and_celery_tell_how_it_is(running: Running) -> None:
    listed = tasks(running, "models")
    assert listed.stdout.count("1 ready") == 2, listed.stderr
    examined = tasks(running, "doctor")
    assert examined.returncode == 0, examined.stdout
    environment = os.environ | {"TOUCHSTONE_DATA": str(running.data)}
    argv = [sys.executable, "-m", "celery", "-A", "tasks.queue", "status"]
    asked = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert "poet-large" in asked.stdout and "poet-small" in asked.stdout


def completions_of(running: Running, run: str) -> Iterator[dict[str, Any]]:
    after: str | None = ""
    while after is not None:
        page = running.call(f"/api/runs/{run}/completions?limit=1000" + (f"&after={after}" if after else ""))[1]
        yield from page["completions"]
        after = page["next"]


def test_a_second_worker_shares_the_work_and_stops_when_told(running: Running) -> None:
    environment = os.environ | {"TOUCHSTONE_DATA": str(running.data)}
    argv = [sys.executable, "-m", "tasks", "worker", "--model", "poet-large"]
    second = subprocess.Popen(argv, cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 60
        ready = 0
        while ready < 2 and time.monotonic() < deadline:
            ready = running.call("/api/models")[1]["models"][0]["ready_workers"]
            time.sleep(0.2)
        assert ready == 2
        # Several chunks of the largest size: what is only one chunk is one worker's.
        run = running.call("/api/runs", {"prompts": [PROMPT] * 8 * MAX_CHUNK, "models": ["poet-large"], "fresh": True})[
            1
        ]["id"]
        running.wait(run, 120)
        assert len({row["worker"] for row in completions_of(running, run)}) == 2
    finally:
        second.terminate()
        assert second.wait(60) == 0


def test_a_model_that_cannot_load_is_one_clear_line_and_shown(running: Running, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "models.toml"
    broken.write_text('[[model]]\nname = "broken"\nsource = "empty"\n')
    environment = os.environ | {"TOUCHSTONE_DATA": str(running.data), "TOUCHSTONE_MODELS": str(broken)}
    argv = [sys.executable, "-m", "tasks", "worker", "--model", "broken"]
    ended = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0 and ended.stderr.startswith("broken: cannot load")
    assert len(ended.stderr.strip().splitlines()) == 1
    workers = running.call("/api/workers")[1]["workers"]
    assert [row["state"] for row in workers if row["model"] == "broken"] == ["failed"]
