"""The ledger's database that stops, breaks, is held or is full, and clocks that are wrong: cases 22 to 26 and 31."""

import sqlite3
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from tests.conftest import require
from tests.faults.deployment import LEASE, Scene
from tests.faults.processes import until
from tests.postgres import Cluster

WAIT_SECONDS = 7.0  # what a submit may take while the ledger is away: 5 s of waiting, and some
SMALL_DISK = "24m"


def test_case_22_postgresql_crashes(own_cluster: Cluster, tmp_path: Path) -> None:
    """Fault: PostgreSQL crashes in the middle of a run. Injection: an immediate stop; started again after 5 s;
    meanwhile one of the two workers dies. Must hold: meanwhile a submit gets a clear 503 in bounded time; the worker
    is started again until it finds the ledger; the run goes on by itself; nothing lost, nothing twice.
    """
    scene = Scene(tmp_path, own_cluster.url)
    try:
        scene.supervised(2)
        web = scene.web()
        run = scene.submit(200, tokens=20)
        until(lambda: scene.done(run) > 10, 20, "work has begun")
        own_cluster.stop("immediate")
        scene.kill_supervised(0)
        started = time.monotonic()
        status, answer = scene.post(web, 3)
        assert status == 503 and "try again" in answer["error"]["message"]
        assert time.monotonic() - started < WAIT_SECONDS
        time.sleep(max(0.0, 5 - (time.monotonic() - started)))
        own_cluster.start()
        assert scene.drained(90).outcomes["done"] == 200
        scene.wait_ready(2)
    finally:
        scene.end()
        print(scene.logs())


def test_case_23_connections_terminated(postgres_scene: Scene) -> None:
    """Fault: PostgreSQL ends connections in the middle of transactions. Injection: pg_terminate_backend on all others,
    ten times a second for 8 s, under a run and submits. Must hold: every submit is acknowledged (each is tried once
    more) or says that nothing was changed; nothing lost, nothing twice.
    """
    scene = postgres_scene
    scene.workers(2)
    web = scene.web()
    scene.submit(200, tokens=20)
    statuses = []
    cut = 0
    with psycopg.connect(scene.settings.database_url, autocommit=True) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            found = connection.execute(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}")
            cut += found.fetchone()[0]  # type: ignore[index]
            statuses.append(scene.post(web, 3, key=f"key-{len(statuses)}")[0])
            time.sleep(0.1)
    print(f"{cut} connections cut, submits: {statuses}")
    assert cut > 20 and set(statuses) <= {202, 503}
    assert statuses.count(202) > len(statuses) / 2, "once more is tried"
    verdict = scene.drained(90)
    assert verdict.outcomes["done"] >= 200 + 3 * statuses.count(202)


def test_case_24_sqlite_held(sqlite_scene: Scene) -> None:
    """Fault: a process stands still inside a write transaction. Injection: another connection takes SQLite's write lock
    and keeps it for 15 s. Must hold: a submit gets a clear 503 after a bounded wait, pages still answer, and when the
    lock is free the run goes on.
    """
    scene = sqlite_scene
    scene.workers(1)
    web = scene.web()
    run = scene.submit(100, tokens=20)
    until(lambda: scene.done(run) > 5, 20, "work has begun")
    holder = sqlite3.connect(scene.folder / "touchstone.db", isolation_level=None, timeout=20)
    holder.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    status, answer = scene.post(web, 3)
    waited = time.monotonic() - started
    assert status == 503 and "try again" in answer["error"]["message"]
    assert waited < WAIT_SECONDS
    assert web.call(f"/api/runs/{run.id}")[0] == 200
    time.sleep(15 - waited)
    holder.execute("ROLLBACK")
    holder.close()
    assert scene.post(web, 3)[0] == 202
    assert scene.drained().outcomes["done"] == 103


def test_case_25_disk_full(tmp_path: Path) -> None:
    """Fault: the disk under the ledger is full. Injection: the ledger on a tmpfs of 24 MB that a file fills up. Must
    hold: a submit gets a clear 503, pages answer; when there is room the run goes on, nothing lost.
    """
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(small)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    require(mounted.returncode == 0, f"the right to mount a tmpfs ({mounted.stderr.strip()})")
    ballast = small / "ballast"
    try:
        scene = Scene(tmp_path, f"sqlite:///{small / 'touchstone.db'}")
        try:
            scene.workers(1)
            web = scene.web()
            run = scene.submit(150, tokens=20)
            until(lambda: scene.done(run) > 10, 20, "work has begun")
            with pytest.raises(OSError, match="space"), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
            time.sleep(2)
            status, answer = scene.post(web, ["满" * 30_000 + str(i) for i in range(20)])
            assert status == 503 and "full" in answer["error"]["message"]
            assert web.call(f"/api/runs/{run.id}")[0] == 200
            time.sleep(4)
            ballast.unlink()
            assert scene.drained(90).outcomes["done"] == 150
        finally:
            scene.end()
            print(scene.logs())
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_case_26_web_dies_between_commit_and_publish(scene: Scene) -> None:
    """Fault: the web dies when a run is committed, before any message is out. Injection: Redis is frozen, so that no
    message can get out; SIGKILL as soon as the run is there. Must hold: the sweeper runs it.
    """
    scene.workers(1)
    web = scene.web()
    scene.redis.freeze()
    status, answer = scene.post(web, 20)
    web.process.kill()
    scene.redis.thaw()
    assert status == 202
    until(lambda: scene.ledger.runs.get(answer["id"]).counts.done == 20, 30, "the sweeper has found it")
    scene.drained()


def test_case_31_wrong_clock(postgres_scene: Scene) -> None:
    """Fault: a worker's clock is wrong. Injection: in one worker process ``time.time`` is an hour ahead, in another an
    hour behind (libfaketime makes Python's own waits hang; PostgreSQL only, for with SQLite all processes share one
    clock). Must hold: leases are unaffected, nothing is done twice, and latency is by the ledger's clock.
    """
    scene = postgres_scene
    scene.scorer()
    for shift in ("3600", "-3600"):
        scene.worker(CLOCK_SHIFT=shift)
    scene.wait_ready(2)
    run = scene.submit(150, tokens=60)
    began = time.monotonic()
    scene.drained()
    took = time.monotonic() - began
    rows = scene.rows(run)
    assert {row.attempt for row in rows} == {1}, "no lease ran out"
    assert len({row.worker for row in rows}) == 2
    for row in rows:
        assert row.created and row.claimed and row.admitted and row.first_token and row.last_token
        assert row.created <= row.claimed <= row.admitted + 0.05 <= row.first_token + 0.05 <= row.last_token + 0.05
        assert row.last_token - row.created < took + LEASE
