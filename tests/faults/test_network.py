"""Cables that are pulled, packets that vanish or come late, and three hosts: cases 18 to 20.

Hosts are network namespaces. Redis, PostgreSQL, scorer and web are on the first, workers on the others.
"""

import os
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import require
from tests.faults.deployment import LEASE, SHORT, SIMULATED, Scene
from tests.faults.network import Network, network
from tests.faults.processes import Process, Redis, python, until
from tests.faults.wire import Wire
from tests.postgres import Cluster, find_binaries

PULLED_SECONDS = 4 * LEASE
DEFAULT_TIMES: dict[str, float] = {}


@contextmanager
def spread_scene(folder: Path, net: Network, times: dict[str, float] = SHORT) -> Iterator[Scene]:
    """A scene whose servers are on the network's first host."""
    binaries = find_binaries()
    require(binaries is not None, "PostgreSQL")
    assert binaries is not None
    server = net.host()
    with Cluster.running(binaries, server.address, server.inside) as cluster:
        redis = Redis(folder, server.address, prefix=server.inside)
        scene = Scene(folder, cluster.tcp_url, SIMULATED, redis, times)
        try:
            yield scene
        finally:
            scene.end()
            print(scene.logs())


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def test_case_18_cable_pulled(net: Network, tmp_path: Path) -> None:
    """Fault: a worker's host loses its link. Injection: the link is down for four leases, in the middle of a run. Must
    hold: its work is done elsewhere within lease + 10 s; when the cable is back, what it still writes is fenced off and
    it works again without a restart.
    """
    with spread_scene(tmp_path, net) as scene:
        near, far = net.host(), net.host()
        scene.scorer()
        victim, other = (scene.worker(prefix=host.inside) for host in (far, near))
        scene.wait_ready(2)
        run = scene.submit(150, tokens=30)
        until(lambda: scene.leased_by(victim), 20, "the victim holds a chunk")
        far.pull_cable()
        held = scene.leased_by(victim)
        pulled = time.monotonic()
        seconds = until(lambda: scene.states(held) <= {"done"}, LEASE + 10, "what it held is done elsewhere")
        print(f"work went on after {seconds:.1f} s")
        time.sleep(max(0.0, PULLED_SECONDS - (time.monotonic() - pulled)))
        far.put_back_cable()
        assert scene.drained(60).outcomes["done"] == 150
        assert scene.rows(run)
        other.kill()
        scene.submit(10)
        seconds = until(lambda: scene.ledger.runs.newest(1)[0].finished, 60, "the victim works again")
        print(f"the cut-off worker finished a run {seconds:.1f} s after it was submitted")
        scene.drained()


def test_case_19_late_and_lost_packets(net: Network, tmp_path: Path) -> None:
    """Fault: a bad line to a worker. Injection: every packet it sends is 300 ms late, one in ten is lost (a userspace
    cable between two TAP interfaces: not every kernel has netem). With the default lease of 30 s. Must hold: no
    lease runs out falsely, so every completion is of the first attempt; the run completes.
    """
    require(os.access("/dev/net/tun", os.R_OK | os.W_OK), "/dev/net/tun")
    with spread_scene(tmp_path, net, DEFAULT_TIMES) as scene:
        names = (f"{net.bridge}t0", f"{net.bridge}t1")
        wire = Wire(names, 0.3, 0.1)
        try:
            net.attach(names[0])
            far = net.host(wire=names[1])
            scene.scorer()
            scene.worker(prefix=far.inside)
            scene.wait_ready(1)
            run = scene.submit(40, tokens=30)
            scene.drained(180)
            print(f"{wire.lost} of {wire.sent} packets lost")
            assert wire.lost > 20
            assert {row.attempt for row in scene.rows(run)} == {1}
        finally:
            scene.end()
            wire.close()


def test_case_20_half_open(net: Network, tmp_path: Path) -> None:
    """Fault: a host's packets vanish while every connection still looks open. Injection: the bridge drops them all for
    four leases; the only worker is behind it. Must hold: it recovers within 60 s after packets pass again.
    """
    with spread_scene(tmp_path, net) as scene:
        far = net.host()
        scene.scorer()
        worker = scene.worker(prefix=far.inside)
        scene.wait_ready(1)
        run = scene.submit(100, tokens=30)
        until(lambda: scene.done(run) > 5 and scene.leased_by(worker), 20, "work has begun")
        far.swallow(True)
        time.sleep(PULLED_SECONDS)
        done = scene.done(run)
        far.swallow(False)
        seconds = until(lambda: scene.done(run) > done, 60, "work goes on")
        print(f"work went on {seconds:.1f} s after packets passed again")
        assert scene.drained(90).outcomes["done"] == 100


def test_three_hosts(net: Network, tmp_path: Path) -> None:
    """Web, Redis and PostgreSQL on one host, two workers of one model on two others. Must hold: both share the work,
    the page of models shows both hosts, a cable that is pulled and put back in the middle of a run costs nothing, and a
    worker that is told to use SQLite there refuses with one clear line (I13).
    """
    with spread_scene(tmp_path, net) as scene:
        server = net.hosts[0]
        hosts = [net.host(), net.host()]
        scene.scorer()
        web = scene.web(server.address, prefix=server.inside)
        for host in hosts:
            scene.worker(prefix=host.inside)
        scene.wait_ready(2)
        page = urllib.request.urlopen(f"{web.url}/models", timeout=10).read().decode()
        assert all(re.search(rf"{host.name}:\d+", page) for host in hosts)
        status, answer = scene.post(web, 200, sampling={"max_new_tokens": 30})
        assert status == 202
        run = scene.ledger.runs.get(answer["id"])
        until(lambda: scene.done(run) > 20, 30, "work has begun")
        hosts[0].pull_cable()
        time.sleep(2 * LEASE)
        hosts[0].put_back_cable()
        assert scene.drained(90).outcomes["done"] == 200
        assert len({row.worker for row in scene.rows(run)}) == 2, "both worked"
        refused = refuse_sqlite(scene, tmp_path / "elsewhere", hosts[0].inside)
        assert refused.wait(20) == 3
        assert len(refused.said.strip().splitlines()) == 1
        assert "set TOUCHSTONE_DATABASE_URL to a PostgreSQL" in refused.said


def refuse_sqlite(scene: Scene, folder: Path, prefix: list[str]) -> Process:
    """A worker on another host that was given the address of Redis only."""
    folder.mkdir()
    settings = replace(scene.settings, database_url=f"sqlite:///{folder / 'touchstone.db'}", data=folder)
    argv = [*prefix, *python(scene.kind.module, "--model", scene.kind.model)]
    return Process("refused", argv, folder, settings.to_environment())
