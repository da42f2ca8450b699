"""Commands that list, export and add to runs, against a real server that speaks the API's addresses."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tasks.commands import main
from tests.unit.api_server import PREVIEW, ApiServer, Reply, error, run_state, serving

CONTENT = b"\xef\xbb\xbf" + "问题,答案\r\n".encode() * 100_000


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with serving() as server:
        server.answers = {
            "GET /api/runs/r1/export": Reply(CONTENT, headers={"Content-Disposition": "attachment; filename=run.csv"}),
            "POST /api/uploads": {"id": "u1", "name": "f.csv", "bytes": 3, "preview": PREVIEW},
            "GET /api/runs/r1": run_state("running", 2),
        }
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(api: ApiServer, *words: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--url", api.url])


def with_name(header: str) -> Reply:
    return Reply(b"x", headers={"Content-Disposition": header})


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="plain.csv"', "plain.csv"),
        ("attachment; filename=x.csv; filename*=UTF-8''%E6%98%A5.csv", "x.csv"),
        ("attachment; filename*=UTF-8''%E6%98%A5.csv", "春.csv"),
        ('attachment; filename="../../etc/evil.csv"', "evil.csv"),
        ("attachment", "r1.csv"),
    ],
)
def test_an_export_is_named_by_the_server_and_stays_in_this_folder(
    api: ApiServer, folder: Path, header: str, name: str
) -> None:
    api.answers["GET /api/runs/r1/export"] = with_name(header)
    assert run(api, "export", "r1", "--format", "csv").exit_code == 0
    assert [path.name for path in folder.iterdir()] == [name]
    again = run(api, "export", "r1", "--format", "csv")
    assert again.exit_code == 1 and "is there already" in again.output


def test_an_export_is_the_same_to_the_byte(api: ApiServer, folder: Path) -> None:
    (folder / "out.csv").write_text("old")
    done = run(api, "export", "r1", "--format", "csv", "--models", "a,b", "--out", "out.csv")
    assert done.exit_code == 0 and (folder / "out.csv").read_bytes() == CONTENT
    assert api.of("GET /api/runs/r1/export")[0].query == {"format": ["csv"], "models": ["a", "b"]}
    assert (folder / "out.csv").stat().st_mode & 0o777 == 0o666 & ~_umask()
    shown = run(api, "export", "r1", "--format", "csv", "--out", "-")
    assert shown.stdout_bytes == CONTENT


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_broken_export_leaves_what_was_there(api: ApiServer, folder: Path) -> None:
    (folder / "out.csv").write_text("old")
    api.answers["GET /api/runs/r1/export"] = Reply(b"half", said=100)
    done = run(api, "export", "r1", "--format", "csv", "--out", "out.csv")
    assert done.exit_code == 75 and len(done.output.splitlines()) == 1
    assert [path.read_text() for path in folder.iterdir()] == ["old"]


def test_a_refused_export_leaves_nothing(api: ApiServer, folder: Path) -> None:
    api.answers["GET /api/runs/r1/export"] = error("format must be jsonl or csv.")
    done = run(api, "export", "r1", "--format", "doc", "--out", "out.doc")
    assert (done.exit_code, done.output) == (1, "touchstone: format must be jsonl or csv.\n")
    assert not list(folder.iterdir())


def test_runs_are_listed_with_what_was_searched_for(api: ApiServer) -> None:
    counts = {"total": 9, "done": 4, "failed": 0, "cancelled": 0, "pending": 5}
    one = {"id": "r1", "title": "诗", "state": "running", "created": 1.0, "counts": counts, "models": ["a", "b"]}
    api.answers["GET /api/runs"] = {"runs": [one], "next": "n1"}
    done = run(api, "runs", "--search", "诗 歌", "--state", "running", "--after", "n0")
    assert done.exit_code == 0
    assert done.output.split()[0] == "r1" and "4/9  a, b  诗" in done.output and "more: --after n1" in done.output
    query = {"search": ["诗 歌"], "state": ["running"], "limit": ["20"], "after": ["n0"]}
    assert api.of("GET /api/runs")[0].query == query
    assert run(api, "runs", "--state", "deleted").exit_code == 2


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (["add-models", "r1", "--models", "c,d"], "models", {"models": ["c", "d"]}),
        (["add-samples", "r1", "3"], "samples", {"samples": 3}),
        (["add-prompts", "r1", "FILE"], "prompts", {"upload": "u1", "reading": {}}),
        (["merge", "r1", "r2"], "merge", {"run": "r2"}),
    ],
)
def test_a_run_grows(api: ApiServer, folder: Path, words: list[str], path: str, body: dict[str, Any]) -> None:
    (folder / "FILE").write_text("x")
    api.answers[f"POST /api/runs/r1/{path}"] = Reply({}, 202)
    done = run(api, *words)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("run r1 is running, priority 0: 8 total, 4 done, 0 failed, 0 cancelled, 4 pending\n")
    assert api.of(f"POST /api/runs/r1/{path}")[0].body == body


def test_prompts_with_problems_are_not_added(api: ApiServer, folder: Path) -> None:
    (folder / "FILE").write_text("x")
    api.answers["POST /api/uploads"] = {"id": "u1", "preview": PREVIEW | {"problem_count": 1}}
    done = run(api, "add-prompts", "r1", "FILE")
    assert done.exit_code == 1 and "--leave-out" in done.output and not api.of("POST /api/runs/r1/prompts")


def test_answers_are_imported_and_those_without_a_prompt_told(api: ApiServer, folder: Path) -> None:
    (folder / "FILE").write_text("x")
    found = {"columns": ["gpt-4 (imported)"], "taken": 5, "unmatched_count": 2, "unmatched": [3, 8]}
    api.answers["POST /api/runs/r1/answers"] = found
    done = run(api, "import-answers", "r1", "FILE", "--label", "gpt-4")
    assert done.exit_code == 0
    assert "2 answers belong to no prompt of the run: lines 3, 8" in done.output
    assert "5 answers are taken as gpt-4 (imported)" in done.output
    assert api.of("POST /api/runs/r1/answers")[0].body == {"upload": "u1", "label": "gpt-4"}
    api.answers["POST /api/runs/r1/answers"] = found | {"taken": 0, "columns": []}
    assert run(api, "import-answers", "r1", "FILE").exit_code == 1
