"""The command that says which families answer: it runs, and it finds what is wrong."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tasks.settings import ROOT
from worker.bench import architectures
from worker.bench.architectures import Row, check, main, summary, table
from worker.bench.families import FAMILIES, Family
from worker.engine import choice


def test_the_table_and_the_last_line_agree() -> None:
    command = [sys.executable, "-m", "worker.bench", "architectures", "--only", "qwen3", "mixtral", "mamba", "own-code"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *lines, _, last = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(last)
    assert (found["answer"], found["wrong"], found["weak"]) == (3, 0, 0)
    assert found["paths"] == {"fast": 1, "slow": 1, "compatible": 1, "refused": 1, "fails": 0}
    assert {"torch", "transformers", "processor", "python"} <= found["environment"].keys()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[0] for row in cells[2:]] == ["qwen3", "mixtral", "mamba", "own-code"]
    by_name = {family["family"]: family for family in found["families"]}
    for row, family in [(row, by_name[row[0]]) for row in cells[2:]]:
        assert row[:3] == [family["family"], family["examples"], family["path"]]
        if family["tokens"]:
            assert row[3] == "384 of 384" and family["tokens"] == 2 * 8 * 24 and family["distinct"] >= 10
    reasons = [row[4] for row in cells[2:]]
    assert "in place" in reasons[1] and "states" in reasons[2] and "custom code" in reasons[3]


def test_wrong_tokens_are_found_and_the_command_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Llama 4 attends in chunks, which the engine takes no notice of: right for the first tokens, then wrong."""
    monkeypatch.setattr(choice, "_unknown_kind", lambda model: None)
    assert main(["--only", "llama4", "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    (family,) = found["families"]
    assert (found["wrong"], found["answer"], family["path"]) == (1, 0, "slow")
    assert 0 < family["right"] < family["tokens"]


def test_a_family_that_cannot_be_made_fails_alone() -> None:
    row = check(Family("odd", "none", "llama", {"num_key_value_heads": 3}))
    assert row.path == "fails" and row.reason and not row.answers and not row.is_wrong


def test_too_few_different_tokens_do_not_count() -> None:
    row = Row("dull", "none", "fast", right=384, tokens=384, distinct=architectures.LEAST_DISTINCT - 1)
    assert not row.answers and summary([row])["weak"] == 1 and summary([row])["answer"] == 0
    assert "does not count" in table([row])


def test_the_document_has_every_family() -> None:
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count(" | ") >= 4]
    listed = {row[0].removeprefix("| "): row for row in rows}
    for family in FAMILIES:
        assert listed[family.name][1] == family.examples and "384 of 384" in listed[family.name][3]


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--only"], ["--fast"]])
def test_a_bad_command_says_what_there_is(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "architectures" in capsys.readouterr().err
