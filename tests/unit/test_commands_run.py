"""``run FILE`` and ``follow RUN`` against a real server that speaks the API's addresses."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tasks.commands import following, main
from tasks.settings import ROOT
from tests.unit.api_server import ESTIMATE, PREVIEW, READING, ApiServer, Reply, completion, error, run_state, serving

DONE = run_state("done", 4)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    with serving() as server:
        rows = [completion(number) for number in (1, 2, 9)] + [completion(50, origin="cached")]
        server.answers = {
            "POST /api/uploads": {"id": "u1", "name": "f.csv", "bytes": 3, "preview": PREVIEW},
            "POST /api/uploads/u1/preview": {"id": "u1", "preview": PREVIEW},
            "POST /api/estimate": ESTIMATE,
            "POST /api/runs": Reply({"id": "r1", "url": "/runs/r1"}, 202),
            "GET /api/runs/r1": [run_state("running", 2, estimate={"low": 30.0, "high": 60.0}), DONE],
            "GET /api/runs/r1/completions": {"completions": rows, "next": None},
        }
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "f.csv"
    made.write_bytes("问题;类别\n".encode("gb18030"))
    return made


def run(api: ApiServer, *words: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--url", api.url])


def test_a_file_is_handed_in_shown_estimated_queued_followed_and_told(api: ApiServer, file: Path) -> None:
    done = run(api, "run", file)
    assert done.exit_code == 0, done.output
    assert api.of("POST /api/uploads")[0].body == file.read_bytes()
    assert api.of("POST /api/uploads")[0].query == {"name": ["f.csv"]}
    for said in (
        "f.csv: 2 prompts, format csv (guessed), encoding gb18030, separator ;, prompt from '问题' (guessed)",
        "columns: 问题, 类别",
        "  写一首 关于春天的诗\n  你好\n",
        "note: The column 类别 is a variable.",
        "it will take 1.5 to 4.0 min",
        "a: 1.5 to 4.0 min, 30 s of it for other runs",
        "b: not measured yet; ask it one prompt, too long for its context: 1 prompt",
        f"{api.url}/runs/r1",
        "4 of 8 completions, 0.0/s, 30 s to 1.0 min left",
    ):
        assert said in done.output
    assert api.of("POST /api/runs")[0].body == {"samples": 1, "upload": "u1", "reading": {}, "title": "f.csv"}
    assert api.of("POST /api/estimate")[0].body == {"samples": 1, "prompts": 2, "lengths": {"10": 2}}
    row = next(line.split() for line in done.output.splitlines() if line.startswith("a  "))
    assert row == ["a", "4", "0", "0", "1", "200", "ms", "10", "ms", "100"], "a stored answer has no latency"


def test_every_option_reaches_the_server(api: ApiServer, file: Path) -> None:
    words = "--models a,b --samples 2 --set temperature=0.2 --set max_new_tokens=64 --set stop=。 --set stop=1"
    words += " --template {{问题}} --system 简短 --category 诗 --format csv --encoding gb18030 --separator ;"
    words += " --column prompt=问题 --leave-out --deadline 60 --fresh --name 春 --title 夏 --yes"
    done = run(api, "run", file, *words.split())
    assert done.exit_code == 0, done.output
    reading = READING | {"template": "{{问题}}", "system": "简短", "category": "诗", "leave_out": True}
    assert api.of("POST /api/uploads/u1/preview")[0].body == reading
    sampling = {"temperature": 0.2, "max_new_tokens": 64, "stop": ["。", "1"]}
    asked = {"models": ["a", "b"], "samples": 2, "sampling": sampling}
    options = {"deadline": 60.0, "fresh": True, "set_name": "春", "title": "夏", "upload": "u1", "reading": reading}
    assert api.of("POST /api/runs")[0].body == asked | options
    assert api.of("POST /api/estimate")[0].body == asked | {"prompts": 2, "lengths": {"10": 2}}


def test_problems_are_all_told_and_queue_nothing_unless_they_are_left_out(api: ApiServer, file: Path) -> None:
    problem = {"line": 7, "reason": "The prompt is empty.", "remedy": "Write something."}
    preview = PREVIEW | {"problem_count": 3, "problems": [problem, problem | {"line": 9}]}
    api.answers["POST /api/uploads"] = {"id": "u1", "preview": preview}
    api.answers["POST /api/uploads/u1/preview"] = {"id": "u1", "preview": preview}
    refused = run(api, "run", file)
    assert refused.exit_code == 1 and not api.of("POST /api/runs")
    for said in ("line 7: The prompt is empty. Write something.", "line 9: ", "and 1 more lines", "--leave-out"):
        assert said in refused.output
    assert run(api, "preview", file).exit_code == 1
    assert run(api, "run", file, "--leave-out").exit_code == 0
    assert api.of("POST /api/runs")[0].body["reading"] == {"leave_out": True}


def test_a_file_without_a_prompt_queues_nothing_even_with_lines_left_out(api: ApiServer, file: Path) -> None:
    api.answers["POST /api/uploads/u1/preview"] = {"id": "u1", "preview": PREVIEW | {"prompts": 0, "problem_count": 5}}
    done = run(api, "run", file, "--leave-out")
    assert done.exit_code == 1 and "holds no prompt" in done.output and not api.of("POST /api/runs")


def test_some_failed_is_another_end_and_their_reasons_are_told(api: ApiServer, file: Path) -> None:
    api.answers["GET /api/runs/r1"] = run_state("done", 1, failed=3)
    failure = completion(1, finish_reason="error", error="The server refuses.")
    api.answers["GET /api/runs/r1/completions"] = [
        {"completions": [failure, failure], "next": "1.0.a"},
        {"completions": [completion(1, finish_reason="deadline")], "next": None},
    ]
    done = run(api, "run", file)
    assert done.exit_code == 3
    assert "a: 2 failed: The server refuses." in done.output and "a: 1 failed: deadline" in done.output
    assert api.of("GET /api/runs/r1/completions")[1].query["after"] == ["1.0.a"]


def test_a_large_run_is_told_by_its_first_pages(api: ApiServer) -> None:
    rows = [completion(1)] * following.PAGE
    api.answers["GET /api/runs/r1/completions"] = {"completions": rows, "next": "1.0.a"}
    done = run(api, "follow", "r1")
    assert len(api.of("GET /api/runs/r1/completions")) == 2 * following.PAGES
    assert "of the first 5000 completions" in done.output


def test_what_blocks_is_told_once(api: ApiServer) -> None:
    state = run_state("running", 1)
    state["models"][0]["waits"] = {"reason": "no_worker", "blocked": True, "message": "No worker runs it."}
    state["models"][1]["waits"] = {"reason": "busy", "blocked": False, "message": "Others are before it."}
    api.answers["GET /api/runs/r1"] = [state, state, state, DONE]
    done = run(api, "follow", "r1")
    assert done.output.count("a waits: No worker runs it.") == 1 and "Others are before" not in done.output


def test_a_server_that_is_restarted_does_not_end_the_watching(api: ApiServer) -> None:
    away = error("The ledger cannot be used now.", 503)
    api.answers["GET /api/runs/r1"] = [run_state("running", 1), away, away, DONE]
    assert run(api, "follow", "r1").exit_code == 0


def test_a_server_that_stays_away_is_another_end(api: ApiServer, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(following, "PATIENCE_SECONDS", 0.0)
    api.answers["GET /api/runs/r1"] = error("Come back later.", 503)
    assert run(api, "follow", "r1").exit_code == 75
    done = CliRunner().invoke(main, ["run", str(file), "--url", "http://127.0.0.1:1"])
    assert done.exit_code == 75 and len(done.output.splitlines()) == 1 and "touchstone up" in done.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "temperature"], 2, "write NAME=VALUE"),
        (["--set", "temprature=1"], 1, "did you mean 'temperature'"),
        (["--set", "temperature=hot"], 1, "must be a number from 0 to 5"),
        (["--column", "answer=答案"], 2, "none of prompt, system"),
        (["--separator", "|"], 2, "none of"),
        (["--format", "docx"], 2, "'docx' is not one of"),
        (["--samples", "17"], 2, "1<=x<=16"),
        (["--out", "results"], 1, "--out-format"),
        (["--out", "no/such/folder.csv"], 1, "cannot be written"),
    ],
)
def test_bad_options_send_nothing(api: ApiServer, file: Path, words: list[str], code: int, said: str) -> None:
    done = run(api, "run", file, *words)
    assert done.exit_code == code and said in done.output and not api.sent


def test_the_servers_refusal_is_one_line(api: ApiServer, file: Path) -> None:
    api.answers["POST /api/uploads"] = error("f.csv holds no prompt; write one a line.")
    done = run(api, "run", file)
    assert (done.exit_code, done.output) == (1, "touchstone: f.csv holds no prompt; write one a line.\n")


def test_the_results_are_written_at_the_end(api: ApiServer, file: Path, tmp_path: Path) -> None:
    api.answers["GET /api/runs/r1/export"] = Reply(b'{"a": 1}\n')
    out = tmp_path / "out.JSONL"
    assert run(api, "run", file, "--out", out).exit_code == 0
    assert out.read_bytes() == b'{"a": 1}\n' and api.of("GET /api/runs/r1/export")[0].query == {"format": ["jsonl"]}
    assert run(api, "run", file, "--out", out, "--out-format", "inspect").exit_code == 0
    assert api.of("GET /api/runs/r1/export")[1].query == {"format": ["inspect"]}


def test_an_interrupted_watch_leaves_the_run_and_says_how_to_go_on(api: ApiServer) -> None:
    api.answers["GET /api/runs/r1"] = run_state("running", 1)
    argv = [sys.executable, "-m", "tasks", "follow", "r1", "--url", api.url]
    environment: dict[str, Any] = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        while len(api.of("GET /api/runs/r1")) < 2 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        watchdog.cancel()
    assert process.returncode == 130
    assert "run r1 goes on: './touchstone follow r1' shows it, 'cancel' ends it." in said
    assert not [one for one in api.sent if one.method == "POST"]
