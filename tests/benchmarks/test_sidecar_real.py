"""The benchmark of the sidecar, for real and in small: each side does the work, and what is to be seen is seen."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

import pytest

from benchmarks import sidecar_changes, sidecar_load, sidecar_sides, wrk
from benchmarks.__main__ import main
from benchmarks.sidecar_changes import ChangesPlan, Run, measure
from benchmarks.sidecar_configs import nginx_config
from benchmarks.sidecar_load import WORKLOADS, Plan
from benchmarks.sidecar_memory import MemoryPlan, memory_section
from benchmarks.sidecar_scene import HUGE, LARGE, LARGE_SIZE, SMALL, SMALL_BODY, Scene, scene
from benchmarks.sidecar_sides import SIDES, Front, present
from benchmarks.slow_ends import PACE, SlowServer, read_slowly, write_fast
from benchmarks.trouble_proxies import find
from benchmarks.wrk import MIX, fetch, run_wrk
from tests.benchmarks.smoke import check_results

needs_tools = pytest.mark.skipif(not (find("nginx") and find("wrk")), reason="nginx or wrk is not installed")


# ---- ends that are slow


def test_a_slow_service_takes_what_it_is_meant_to_and_the_writer_waits() -> None:
    with SlowServer() as server:
        looks = iter(range(1000))
        sent, most = write_fast(
            server.port, "/", 50_000_000, clients=1, seconds=0.5, look=lambda: float(next(looks))
        )
        assert most >= 3, "it was looked at all the time"
        assert 0 < server.taken <= PACE * 1.0
        assert server.taken <= sent < 25_000_000


@needs_tools
def test_a_slow_reader_reads_what_it_is_meant_to() -> None:
    with scene(registered=False) as here:
        got, _ = read_slowly(here.ports[0], HUGE, clients=2, seconds=0.5, look=lambda: 0.0)
    assert 0 < got <= 2 * PACE * 0.6


# ---- for real, in small


@pytest.fixture(scope="module")
def here() -> Iterator[Scene]:
    if not (find("nginx") and find("wrk")):
        pytest.skip("nginx or wrk is not installed")
    with scene() as made:
        yield made


@pytest.mark.parametrize("side", SIDES)
def test_each_side_does_the_work_and_on_its_core(here: Scene, side: str) -> None:
    if side not in present():
        pytest.skip(f"{side} is not installed")
    with here.front(side) as front:
        assert fetch(front.port, SMALL) == (200, SMALL_BODY)
        status, body = fetch(front.port, LARGE)
        assert (status, len(body)) == (200, LARGE_SIZE)
        assert fetch(front.port, "/users/7?page=1")[1].startswith(b'{"path": "/users/7", "request":')
        if front.session is not None:
            assert os.sched_getaffinity(front.session) == {here.core}
    done = sidecar_load.measure(here, side, WORKLOADS["mix"], Plan(1, 1, 0))
    assert done.load.failed == 0
    assert done.load.requests > 10
    assert done.served >= done.load.requests
    assert (done.cpu > 0) is (side != "direct")
    assert done.load.p99 >= done.load.p50 > 0


def test_a_fresh_connection_for_each_request_is_one(here: Scene) -> None:
    """Told by the instance, which counts connections too."""

    def accepted() -> int:
        return int(fetch(here.ports[0], "/count")[1].splitlines()[2].split()[0])

    for fresh in (False, True):
        before = accepted()
        load = run_wrk(here.ports[0], SMALL, connections=4, seconds=1, fresh=fresh, folder=here.folder)
        assert load.failed == 0
        assert (accepted() - before >= load.requests) is fresh


def test_no_two_requests_of_the_mix_are_the_same() -> None:
    assert "math.random" in wrk._MIX
    assert 'heads[number % 200 + 1] .. start + number .. "\\r\\n\\r\\n"' in wrk._MIX
    assert WORKLOADS["mix"].path == MIX


class Smoked(NamedTuple):
    """What ``python -m benchmarks sidecar --quick`` gave, and the runs of its changes by side."""

    results: dict[str, Any]
    output: str
    errors: str
    changes: dict[str, Run]


@pytest.fixture(scope="module")
def smoked(tmp_path_factory: pytest.TempPathFactory) -> Smoked:
    """In this process, so that the runs can be looked at: each takes seconds."""
    if not (find("nginx") and find("wrk")):
        pytest.skip("nginx or wrk is not installed")
    changes: dict[str, Run] = {}

    def recorded(here: Scene, side: str, plan: ChangesPlan, seed: str) -> Run:
        changes[side] = measure(here, side, plan, seed)
        return changes[side]

    file = tmp_path_factory.mktemp("smoke") / "results.json"
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sidecar_changes, "measure", recorded)
        assert main(["sidecar", "--quick", "--json", str(file)]) == 0
    return Smoked(json.loads(file.read_text()), output.getvalue(), errors.getvalue(), changes)


@pytest.mark.timeout(120)
def test_it_runs_quickly_and_gives_sane_json(smoked: Smoked) -> None:
    """As every other benchmark (`test_smoke`)."""
    check_results("sidecar", smoked.results, smoked.output, smoked.errors)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("side", ["nginx", "sidecar"])
def test_the_instance_that_comes_is_called_and_nothing_fails_when_it_goes(side: str, smoked: Smoked) -> None:
    if side not in present():
        pytest.skip(f"{side} is not installed")
    run = smoked.changes[side]
    assert len(run.changes) == 2
    assert run.share > 0.02
    assert run.report.samples
    if side == "sidecar":
        assert not run.errors


@needs_tools
def test_a_proxy_that_is_not_told_of_the_change_is_seen_not_to_know_it(
    here: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: to ignore every change would look best in all other figures."""
    monkeypatch.setattr(Front, "reload", lambda self, ports: None)
    assert measure(here, "nginx", ChangesPlan(1, 2, 100.0, lead=0.5), "smoke").share == 0.0


@needs_tools
def test_a_proxy_that_takes_what_its_reader_does_not_is_seen_to_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: nginx as it is tuned stays small, and with 64 MB of buffers for each connection it does not."""

    def generous(*words: object, **options: object) -> str:
        text = nginx_config(*words, **options)  # type: ignore[arg-type]
        return text.replace("proxy_buffers 8 64k", "proxy_buffers 64 1m").replace(
            "busy_buffers_size 128k", "busy_buffers_size 2m"
        )

    grown = []
    for config in (nginx_config, generous):
        monkeypatch.setattr(sidecar_sides, "nginx_config", config)
        rows = {row.name: row for row in memory_section(MemoryPlan(1, 1.0, 2), ["nginx"]).rows}
        grown.append(rows["nginx, a slow reader: grown"].median)
    assert grown[0] < 2.0 < 20.0 < grown[1]
