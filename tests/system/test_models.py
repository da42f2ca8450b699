"""Whatever a person has, through the real `up`: it answers, or says in one line why not, and others go on."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.host.redis_server import free_port
from tasks.settings import ROOT
from tests.smollm2 import smollm2_gguf  # noqa: F401  (a fixture)
from tests.system.conftest import Running, start

CLEAR_SECONDS = 20.0  # within which a failure shows
LOAD_SECONDS = 150.0  # for a GGUF file that is converted first
TURNS = [{"prompt": "What is the capital of France?"}, {"prompt": "And of Italy?", "follows": 0}]
# A model that ends its process while it is loaded: Python reads this before anything of the worker's own.
KILLER = """
import os, sys

class Killer:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" and "killer" in sys.argv:
            os.kill(os.getpid(), 9)

sys.meta_path.insert(0, Killer())
"""


def wait(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
    return found


def entry(name: str, source: Path | str, more: str = "") -> str:
    return f'[[model]]\nname = "{name}"\nsource = {json.dumps(str(source))}\n{more}\n'


@pytest.fixture(scope="module")
def people_s(tmp_path_factory: pytest.TempPathFactory, smollm2_gguf: Path) -> Iterator[tuple[Running, Path]]:  # noqa: F811
    """An `up` with a chat model, a poet whose folder may be deleted, and three that cannot be loaded."""
    folder = tmp_path_factory.mktemp("models")
    poet, truncated, garbage = (folder / name for name in ("poet", "truncated", "garbage"))
    for copy in (poet, truncated, garbage):
        shutil.copytree(ROOT / "worker/demo/poet-small", copy)
    os.truncate(truncated / "model.safetensors", 100_000)
    (garbage / "config.json").write_text("{", encoding="utf-8")
    registry = folder / "models.toml"
    registry.write_text(
        entry("smol", smollm2_gguf, "decoding = { temperature = 0, max_new_tokens = 24 }")
        + entry("poet", poet, 'template = "{prompt}\\n"\nadd_special_tokens = false')
        + entry("nowhere", folder / "nowhere")
        + entry("truncated", truncated)
        + entry("garbage", garbage),
        encoding="utf-8",
    )
    data = tmp_path_factory.mktemp("data")
    port = free_port()
    process = start(data, "--port", str(port), "--models", str(registry))
    up = Running(f"http://127.0.0.1:{port}", data, process)
    try:
        wait(lambda: answers(up), 60, "the web answers")
        yield up, folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def answers(up: Running) -> bool:
    try:
        return up.call("/healthz")[0] == 200
    except OSError:
        return False


def model(up: Running, name: str) -> Any:
    return next(one for one in up.call("/api/models")[1]["models"] if one["name"] == name)


def wait_for_state(up: Running, name: str, state: str, seconds: float) -> Any:
    return wait(lambda: (found := model(up, name))["state"] == state and found, seconds, f"{name} is {state}")


def submit(up: Running, **body: Any) -> str:
    status, run = up.call("/api/runs", body)
    assert status == 202, run
    return str(run["id"])


def rows(up: Running, run: str) -> list[Any]:
    return list(up.call(f"/api/runs/{run}/completions")[1]["completions"])


@pytest.mark.parametrize(
    ("name", "words"), [("nowhere", "nowhere"), ("truncated", "model.safetensors"), ("garbage", "config.json")]
)
def test_what_cannot_be_loaded_says_so_in_one_line_and_is_not_tried_again(
    people_s: tuple[Running, Path], name: str, words: str
) -> None:
    up, _ = people_s
    failed = wait_for_state(up, name, "failed", CLEAR_SECONDS)
    assert words in failed["reason"] and "\n" not in failed["reason"]

    def has_ended() -> bool:
        return not any(f"--model {name} " in command for command in up.children())

    wait(has_ended, CLEAR_SECONDS, "its worker has ended")
    time.sleep(2)
    assert has_ended()


def test_a_run_of_a_failed_model_is_blocked_with_the_reason_until_it_is_given_up(
    people_s: tuple[Running, Path],
) -> None:
    up, _ = people_s
    wait_for_state(up, "nowhere", "failed", CLEAR_SECONDS)
    wait_for_state(up, "poet", "ready", 60)
    run = submit(up, prompts=["春"], models=["poet", "nowhere"])

    def waits() -> Any:
        described = {one["name"]: one for one in up.call(f"/api/runs/{run}")[1]["models"]}
        return described["poet"]["counts"]["done"] == 1 and described["nowhere"]["waits"]

    blocked = wait(waits, 30, "the poet has answered and the other is blocked")
    assert blocked["blocked"] and "nowhere" in blocked["message"]
    assert up.call(f"/api/runs/{run}/models/nowhere/fail", {})[0] == 200
    assert up.wait(run)["counts"] == {"total": 2, "done": 1, "failed": 1, "cancelled": 0, "pending": 0}
    assert any("nowhere" in (row["error"] or "") for row in rows(up, run))


def test_a_chat_model_answers_by_its_template_turn_by_turn(people_s: tuple[Running, Path]) -> None:
    up, _ = people_s
    wait_for_state(up, "smol", "ready", LOAD_SECONDS)
    run = submit(up, prompts=TURNS, models=["smol"])
    assert up.wait(run)["counts"]["done"] == 2
    first, second = rows(up, run)
    assert "Paris" in first["text"] and "Rom" in second["text"]
    assert first["finish_reason"] == "stop" and "<|im" not in first["text"]
    rendered = up.call(f"/api/runs/{run}/rendered?model=smol&idx=1&sample=0")[1]
    assert rendered["text"].count("<|im_start|>user") == 2 and first["text"] in rendered["text"]
    assert len(rendered["tokens"]) == second["prompt_tokens"]
    idx = wait(lambda: up.call(f"/api/runs/{run}/prompts", {"prompt": "And of Spain?", "follows": 1})[0] == 202, 5, "")
    assert idx and up.wait(run)["counts"]["done"] == 3
    assert "Madrid" in rows(up, run)[2]["text"]


def test_a_base_model_says_why_it_takes_no_system_message(people_s: tuple[Running, Path]) -> None:
    up, _ = people_s
    wait_for_state(up, "poet", "ready", 60)
    run = submit(up, prompts=[{"prompt": "春", "system": "be brief"}], models=["poet"])
    assert up.wait(run)["counts"]["failed"] == 1
    assert "chat template" in rows(up, run)[0]["error"]


def test_a_killed_worker_shows_and_comes_back_and_without_its_folder_it_says_so(
    people_s: tuple[Running, Path],
) -> None:
    up, folder = people_s
    wait_for_state(up, "poet", "ready", 60)
    (folder / "poet").rename(folder / "poet-gone")
    killed = up.child("--model poet")
    os.kill(killed, signal.SIGKILL)

    def is_lost() -> bool:
        return any(w["pid"] == killed and w["state"] == "lost" for w in up.call("/api/workers")[1]["workers"])

    wait(is_lost, CLEAR_SECONDS, "the killed worker is lost")
    failed = wait_for_state(up, "poet", "failed", CLEAR_SECONDS)
    assert "poet" in failed["reason"]
    wait_for_state(up, "smol", "ready", LOAD_SECONDS)
    assert up.wait(submit(up, prompts=["Hi"], models=["smol"]))["counts"]["done"] == 1


def test_a_model_that_ends_its_process_while_loading_is_given_up(tmp_path: Path) -> None:
    registry = tmp_path / "models.toml"
    registry.write_text(entry("killer", ROOT / "worker/demo/poet-small"), encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text(KILLER, encoding="utf-8")
    port = free_port()
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        process = start(tmp_path / "data", "--port", str(port), "--models", str(registry))
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    up = Running(f"http://127.0.0.1:{port}", tmp_path / "data", process)
    try:
        wait(lambda: answers(up), 60, "the web answers")
        run = submit(up, prompts=["x"])
        failed = wait_for_state(up, "killer", "failed", 60)
        assert "ended 3 times" in failed["reason"] and "signal 9" in failed["reason"]
        waits = up.call(f"/api/runs/{run}")[1]["models"][0]["waits"]
        assert waits["blocked"] and "ended 3 times" in waits["message"]
        assert not any("--model killer" in command for command in up.children())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
