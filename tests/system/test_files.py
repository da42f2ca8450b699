"""A person arrives with a file and leaves with a file: through the browser and the command line of a running `up`."""

import csv
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from tasks.settings import ROOT
from tests.system.conftest import Running
from tests.web.test_files import RECORDS, table

PAGE_SECONDS = 30
SEARCH = f"/api/runs?search={quote('题集')}"


def touchstone(running: Running, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"TOUCHSTONE_DATA": str(running.data), "TOUCHSTONE_URL": running.url}
    argv = [sys.executable, "-m", "tasks", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def prompts_of(running: Running, run: str) -> list[tuple[Any, ...]]:
    found = running.call(f"/api/runs/{run}/prompts?limit=1000")[1]["prompts"]
    return [(one["custom_id"], one["category"], one["messages"][-1]["content"], one["reference"]) for one in found]


def export(running: Running, run: str, kind: str) -> bytes:
    with urllib.request.urlopen(f"{running.url}/api/runs/{run}/export?format={kind}", timeout=60) as response:
        return bytes(response.read())


def test_the_shell_takes_a_file_and_gives_one(running: Running, tmp_path: Path) -> None:
    file, out = tmp_path / "题目.csv", tmp_path / "results.jsonl"
    file.write_bytes(table())
    options = ("--models", "poet-small", "--set", "max_new_tokens=4", "--set", "temperature=0", "--name", "题集")
    done = touchstone(running, "run", str(file), *options, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "500" in done.stdout
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["type"] == "run" and len(lines) == 501
    run = running.call(SEARCH)[1]["runs"][0]
    assert prompts_of(running, run["id"]) == RECORDS

    again = touchstone(running, "run", str(file), *options)
    assert again.returncode == 0 and "cached" in again.stdout
    second = running.call(SEARCH)[1]["runs"]
    assert len(second) == 2
    rows = running.call(f"/api/runs/{second[0]['id']}/completions?limit=1000")[1]["completions"]
    assert {row["origin"] for row in rows} == {"cached"} and {row["phases"]["ttft"] for row in rows} == {None}
    first = running.call(f"/api/runs/{run['id']}/completions?limit=1000")[1]["completions"]
    assert [row["text"] for row in rows] == [row["text"] for row in first]

    before = {(row["model"], row["idx"]): row for row in first}
    grown = touchstone(running, "add-models", run["id"], "--models", "poet-large")
    assert grown.returncode == 0, grown.stderr
    assert running.wait(run["id"], 120)["counts"]["done"] == 1000
    rows = running.call(f"/api/runs/{run['id']}/completions?limit=1000")[1]["completions"]
    assert {(row["model"], row["idx"]): row for row in rows if row["model"] == "poet-small"} == before

    answers = tmp_path / "theirs.csv"
    answers.write_text("id,answer\nq0,甲\nq1,乙\nnobody,丙\n", encoding="utf-8")
    imported = touchstone(running, "import-answers", run["id"], str(answers), "--label", "gpt")
    assert imported.returncode == 0 and "gpt (imported)" in imported.stdout, imported.stderr
    table_out = list(csv.reader(export(running, run["id"], "csv").decode("utf-8-sig").splitlines()))
    assert len({len(row) for row in table_out}) == 1
    kinds = ("csv", "csv-wide", "jsonl", "prompts", "parquet", "openai", "mt-bench", "promptfoo", "inspect", "zip")
    assert all(export(running, run["id"], kind) for kind in kinds)


def test_the_browser_shows_a_file_before_it_is_queued(
    running: Running, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    file = tmp_path / "题目.csv"
    file.write_bytes(table())
    browser.get(f"{running.url}/batches")
    browser.find_element(By.ID, "file").send_keys(str(file))
    browser.find_element(By.CSS_SELECTOR, "form[action='/batches'][method='post'] button").click()
    WebDriverWait(browser, PAGE_SECONDS).until(lambda b: b.find_elements(By.ID, "found"))
    assert "500" in browser.find_element(By.ID, "found").text
    browser.find_element(By.CSS_SELECTOR, "details summary").click()
    shown = {
        name: Select(browser.find_element(By.ID, name)).first_selected_option for name in ("encoding", "separator")
    }
    assert shown["encoding"].get_attribute("value") == "gb18030"
    assert shown["separator"].get_attribute("value") == "semicolon"
    browser.find_element(By.CSS_SELECTOR, "form[method='post'][action^='/batches/files/'] button").click()
    WebDriverWait(browser, PAGE_SECONDS).until(lambda b: "/runs/" in b.current_url)
    run = browser.current_url.rpartition("/")[2]
    assert prompts_of(running, run) == RECORDS
    assert running.call(f"/api/runs/{run}/cancel", {})[0] == 200
