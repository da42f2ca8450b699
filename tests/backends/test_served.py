"""Servers that a worker starts: pinned, kept running, and ended with the worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.errors import ModelError
from tasks.settings import ROOT
from tasks.states import FinishReason, LoadStage
from tests.backends.conftest import KEY, Opened, Opener
from worker.backends.openai import served
from worker.backends.openai.served import visible_devices
from worker.backends.protocol import Failure, Increment

SERVE = (sys.executable, "-m", "tests.backends.told_server", "{port}")


@pytest.fixture(autouse=True)
def _quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "FIRST_WAIT", 0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def ends(pid: int, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not is_running(pid)


def pid_of(model: Opened) -> int:
    process = model.backend.server.process
    assert process is not None and process.pid is not None
    return process.pid


def test_a_served_process_has_the_cores_the_device_and_its_words(opener: Opener, tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    os.sched_setaffinity(0, {core})  # as a worker is pinned before it opens its backend
    try:
        keys = {"source": str(tmp_path / "w.gguf"), "concurrency": 5, "device": "cuda:1"}
        model = opener(serve=(*SERVE, "{source}", "--slots={slots}"), **keys)
    finally:
        os.sched_setaffinity(0, before)
    answer, _ = model.ask("facts")
    said = json.loads(answer.text)
    assert said["affinity"] == [core] and said["devices"] == "1" and said["pid"] == pid_of(model)
    assert said["argv"][1:] == [str(tmp_path / "w.gguf"), "--slots=5"]
    assert model.stages == [LoadStage.STARTING_SERVER]
    description = model.backend.description
    assert description.device == "cuda:1" and description.environment.facts["serve"][-1] == "--slots={slots}"
    model.backend.close()
    assert ends(said["pid"])


def test_which_devices_a_server_sees() -> None:
    assert visible_devices("auto", {"CUDA_VISIBLE_DEVICES": "3"}) == {}
    assert visible_devices("cpu", {}) == {"CUDA_VISIBLE_DEVICES": ""}
    assert visible_devices("cuda:1", {}) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert visible_devices("cuda:1", {"CUDA_VISIBLE_DEVICES": "4, 6"}) == {"CUDA_VISIBLE_DEVICES": "6"}


def test_a_server_killed_under_its_prompts_costs_them_retries_and_nothing_else(opener: Opener) -> None:
    model = opener(serve=SERVE, concurrency=4)
    first = pid_of(model)
    for number in range(8):
        model.submit(f"prompt {number}", id=str(number))
    while not isinstance(model.events.get(timeout=10), Increment):
        continue
    os.kill(first, signal.SIGKILL)
    answers = {}
    while len(answers) < 8:
        end, _ = model.until_end()
        assert not isinstance(end, Failure), end
        answers[int(end.generation_id)] = end
    for number, answer in answers.items():
        assert answer.text == f"prompt {number} is answered word by word ", answer
        assert answer.finish_reason is FinishReason.STOP and answer.retries <= 2
    assert sum(answer.retries for answer in answers.values()) >= 1
    assert pid_of(model) != first and model.backend.failures == 0


def test_a_prompt_that_kills_its_server_is_a_failure_and_the_server_goes_on(opener: Opener) -> None:
    model = opener(serve=SERVE)
    model.submit("die", id="a")
    end, _ = model.until_end()
    assert isinstance(end, Failure) and "asked 5 times" in end.error, "it is then found out alone"
    assert model.ask("still there")[0].text == "still there is answered word by word "


def test_a_server_that_starts_but_once_fails_in_the_end(opener: Opener, tmp_path: Path) -> None:
    model = opener(serve=(*SERVE, "once", str(tmp_path / "started")))
    os.kill(pid_of(model), signal.SIGKILL)
    started = time.monotonic()
    while model.backend.failures < 3 and time.monotonic() < started + 20:
        time.sleep(0.05)
    assert model.backend.failures == 3
    model.submit()
    end, _ = model.until_end()
    assert isinstance(end, Failure) and "exit code 5" in end.error and "not started again" in end.error


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        ((*SERVE, "broken"), r"exit code 9\) before it answered; it said: .*these weights are damaged"),
        (("no-such-program", "{port}"), "'no-such-program' cannot be started: No such file"),
        ((*SERVE, "everywhere"), "listens on more than loopback"),
    ],
)
def test_a_server_that_cannot_be_had_says_why(opener: Opener, serve: tuple[str, ...], words: str) -> None:
    with pytest.raises(ModelError, match=words) as raised:
        opener(serve=serve)
    assert "\n" not in raised.value.message


def test_a_key_that_a_server_says_is_not_shown(opener: Opener) -> None:
    with pytest.raises(ModelError, match=r"it said: bad \[key\]") as raised:
        opener(serve=("sh", "-c", "echo bad $TOLD_API_KEY {port}; exit 1"), key_env="TOLD_API_KEY")
    assert KEY not in raised.value.message


def test_a_server_ends_with_a_worker_that_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from tasks.registry import OpenAIModel\n"
        "from worker.backends.openai import open_backend\n"
        f"entry = OpenAIModel(name='told', backend='openai', serve={SERVE!r})\n"
        "backend = open_backend(entry, lambda *stage: None)\n"
        "print(backend.server.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert is_running(pid)
    finally:
        worker.kill()
        worker.communicate()
    assert ends(pid)
