"""The backend `openai` in a whole system of real processes: ledger, Redis, scorer, worker."""

import os
import signal
from pathlib import Path

import pytest

from tasks.states import FinishReason
from tests.backends.conftest import KEY
from tests.backends.test_served import SERVE, ends, is_running
from tests.backends.told_server import MODEL, ToldServer, echoes_key, event, replies, streams, whole
from tests.faults.conftest import opened
from tests.faults.deployment import Kind
from tests.faults.overheard import held_by
from tests.faults.processes import until


def kind(entry: str) -> Kind:
    return Kind(MODEL, f'backend = "openai"\n{entry}', "worker")


def test_a_served_server_may_be_killed_under_a_run(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    served = kind(f"serve = {list(SERVE)!r}\nconcurrency = 4")
    with opened(request, "sqlite", tmp_path, kind=served) as scene:
        [worker] = scene.workers(1)
        run = scene.submit(24)
        [first] = children(worker.pid)
        until(lambda: scene.done(run) >= 4, 30, "some are answered")
        os.kill(first, signal.SIGKILL)
        until(lambda: scene.done(run) == 24, 60, "all are answered")
        rows = scene.rows(run)
        assert {row.finish_reason for row in rows} == {FinishReason.STOP}
        assert all(row.text.endswith(" is answered word by word ") for row in rows)
        assert {row.attempt for row in rows} == {1} and 1 <= sum(row.retries for row in rows) <= 8
        [second] = children(worker.pid)
        worker.kill()
        assert second != first and ends(second)


def test_no_key_gets_into_ledger_redis_or_logs(
    request: pytest.FixtureRequest, tmp_path: Path, told: ToldServer
) -> None:
    told.does(echoes_key, streams(event({"error": {"message": KEY, "code": 400}})), replies(500, KEY.encode()))
    told.otherwise = streams(whole("fine"))
    remote = kind(f'base_url = "{told.url}"\nkey_env = "TOLD_API_KEY"')
    with opened(request, "sqlite", tmp_path, kind=remote) as scene:
        scene.workers(1)
        run = scene.submit(6)
        until(lambda: scene.ledger.runs.get(run.id).counts.pending == 0, 60, "all have ended")
        errors = [row.error for row in scene.rows(run) if row.error]
        assert len(errors) == 2 and all("[key]" in error for error in errors)
        assert all(asked.headers["authorization"] == f"Bearer {KEY}" for asked in told.asked)
        held = held_by(scene.redis.client)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert any(b"[key]" in path.read_bytes() for path in files), "the ledger is looked into"
        for place in (held, *(path.read_bytes() for path in files)):
            assert KEY.encode() not in place


def children(pid: int) -> list[int]:
    """Processes that a worker has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
        except OSError:
            continue
        found += [int(stat.parent.name)] if int(parent) == pid else []
    return [child for child in found if is_running(child)]
