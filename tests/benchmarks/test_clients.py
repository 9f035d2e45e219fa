"""The comparison of clients: what a turn counts, who is left out, and what the tables say of it."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import at_once, clients, clients_scene, clients_sides
from benchmarks.clients_bulk_child import SIZE, pieces
from benchmarks.clients_calls import ASYNC, SYNC
from benchmarks.clients_child import summary, turn_of_tasks, turn_of_threads
from benchmarks.clients_sides import ASYNC_SIDES, OPEN_SIDES, SYNC_SIDES, absent, present
from benchmarks.clients_tables import ASYNC_1, ASYNC_32, OPEN, SYNC_1, SYNC_16, clients_section
from benchmarks.clients_turns import Turn
from benchmarks.trouble_proxies import find
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]


async def test_a_turn_keeps_so_many_requests_in_flight_and_what_warms_up_counts_for_nothing() -> None:
    in_flight, most = 0, 0
    sent: list[float] = []

    async def call() -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        sent.append(time.perf_counter())
        await asyncio.sleep(0.005)
        in_flight -= 1

    told = await turn_of_tasks(call, 4, 0.05, 0.05)
    assert most == 4
    assert told["served"] == len(sent)
    assert 0 < told["requests"] < len(sent)
    assert told["p50"] >= 5
    assert told["p99"] >= told["p50"]
    assert told["rate"] == pytest.approx(told["requests"] / told["wall"])


def test_a_turn_of_threads_has_one_for_each_call_and_with_one_call_none() -> None:
    names: set[str] = set()

    def call() -> None:
        names.add(threading.current_thread().name)

    assert turn_of_threads([call], 0.01, 0.001)["requests"] > 0
    assert names == {threading.main_thread().name}
    names.clear()
    turn_of_threads([call] * 3, 0.01, 0.001)
    assert threading.main_thread().name not in names


@pytest.mark.parametrize("kind", ["tasks", "threads"])
async def test_a_request_that_fails_is_counted_and_is_no_latency(kind: str) -> None:
    number = 0

    def work() -> None:
        nonlocal number
        number += 1
        if number % 2:
            raise ConnectionError

    async def call() -> None:
        work()
        await asyncio.sleep(0)

    if kind == "tasks":
        told = await turn_of_tasks(call, 1, 0.01, 0.005)
    else:
        told = turn_of_threads([work], 0.01, 0.005)
    assert told["failed"].keys() == {"ConnectionError"}
    assert abs(told["failed"]["ConnectionError"] - told["requests"]) <= 1


def test_where_nothing_was_answered_there_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="ConnectError"):
        summary([], Counter({"ConnectError": 3}), 0.1, 0.1)


def test_an_upload_has_the_size_it_says() -> None:
    assert sum(map(len, pieces())) == SIZE == clients_scene.TEN_SIZE


def test_the_process_of_a_client_imports_none_of_the_others() -> None:
    """Their modules would be memory and garbage collections that its own users don't have."""
    code = (
        "import sys, benchmarks.clients_child as _; "
        "print(*({'discoclient', 'httpx', 'httpx2', 'aiohttp', 'requests', 'anyio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_every_side_has_a_client_and_every_ratio_two_sides() -> None:
    for side in ASYNC_SIDES.values():
        assert side.client in ASYNC
    for side in SYNC_SIDES.values():
        assert side.client in SYNC
    for ratios, sides in (
        (ASYNC_32, ASYNC_SIDES),
        (ASYNC_1, ASYNC_SIDES),
        (SYNC_1, SYNC_SIDES),
        (SYNC_16, SYNC_SIDES),
        (OPEN, OPEN_SIDES),
    ):
        assert {key for each in ratios for key in (each.ours, each.reference)} <= set(sides)


def test_an_opponent_that_is_not_installed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_sides, "is_installed", lambda module: module not in ("httpx2", "uvloop"))
    monkeypatch.setattr(clients_sides, "find", lambda name: None)
    found = present(ASYNC_SIDES)
    assert "disco" in found
    assert "aiohttp" in found
    assert not {"httpx2", "httpx2_uvloop", "disco_uvloop", "httpx_nginx"} & found.keys()
    said = absent(ASYNC_SIDES.values())
    assert "httpx2, direct: left out, since httpx2 is not installed here." in said
    assert "httpx through nginx: left out, since nginx is not installed here." in said
    assert "httpx2, direct, uvloop: left out, since httpx2 and uvloop are not installed here." in said
    assert len(said) == len(ASYNC_SIDES) - len(found)


def test_the_comparison_goes_on_without_nginx_and_without_other_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With real processes: only what comes with Python and with discoclient is there."""
    missing = {"httpx2", "httpx_aiohttp", "aiohttp", "pyreqwest", "requests", "uvloop"}
    monkeypatch.setattr(clients_sides, "is_installed", lambda module: module not in missing)
    for module in (clients, clients_scene, clients_sides):
        monkeypatch.setattr(module, "find", lambda name: None)
    plan = clients.Plan(1, 0.02, 0.01, (200.0,), 0.05, clients.BulkPlan(1, 1), wrk_seconds=1)
    once, _, bulk = clients.run_parts(("sync", "bulk"), plan)
    sides = {row.name.rpartition(": ")[0] for row in once.rows if row.role != "compared"}
    assert sides == {
        "DiscoClient",
        "DiscoClient, a new path each time",
        "DiscoClient, 64 instances",
        "httpx, direct",
        "http.client, direct",
        "httpx over nothing",
    }
    assert "requests, direct: left out, since requests is not installed here." in once.notes
    assert any("nginx is not installed here" in note and "Python server" in note for note in once.notes)
    assert (list(bulk.rows), len(bulk.notes)) == ([], 1)
    assert "nginx is not installed" in bulk.notes[0]


def turn(
    rate: float, *, busy: float = 1.0, servers: float = 0.5, others: float | None = 0.0, **told: Any
) -> Turn:
    figures = dict.fromkeys(("p50", "p99", "p999", "cpu"), 1.0)
    return Turn({"rate": rate, "busy": busy, "failed": {}, **figures, **told}, 10.0, servers, others)


def section(ours: list[Turn], nginx: list[Turn]) -> Any:
    sides = {key: SYNC_SIDES[key] for key in ("disco", "httpx_nginx")}
    runs = {"disco": ours, "httpx_nginx": nginx}
    return clients_section("Sync, 1 thread", sides, runs, SYNC_1, ["As told."])


def test_sides_are_compared_round_by_round_with_the_aims() -> None:
    found = section([turn(2000.0), turn(900.0)], [turn(1000.0), turn(600.0)])
    (ratio,) = [row for row in found.rows if row.role == "compared"]
    assert ratio.name == "Sync, 1 thread: requests/s, DiscoClient / httpx through nginx"
    assert (ratio.rounds, ratio.aim, ratio.sense) == ((2.0, 1.5), 1.8, ">=")
    assert found.by_side
    assert found.notes[0] == "As told."


def test_a_run_that_is_not_to_be_quoted_says_so() -> None:
    def notes(mine: Turn) -> str:
        return " ".join(section([mine], [turn(1.0)]).notes)

    assert "don't quote" not in notes(turn(1.0))
    assert "failed: 3 ReadError: don't quote" in notes(turn(1.0, failed={"ReadError": 3}))
    assert "in 1 of 2 turns. That is too much: don't quote" in notes(turn(1.0, others=0.2))
    assert "that side would be faster with faster ones" in notes(turn(1.0, servers=0.95))
    assert "of the clients' core" not in " ".join(
        section([turn(1.0, others=None)], [turn(1.0, others=None)]).notes
    ), "short turns can't tell"


@pytest.mark.skipif(find("nginx") is None, reason="nginx is not installed")
def test_what_stands_behind_answers_at_every_port_and_counts_what_is_uploaded() -> None:
    import httpx

    with clients_scene.scene(etcd=False) as here, httpx.Client() as client:
        assert here.front is not None
        assert len({*here.ports, *here.many, here.front}) == 3 + 64 + 1
        for port in (*here.ports, *here.many, here.front):
            assert client.get(f"http://127.0.0.1:{port}/small").content == clients_scene.SMALL_BODY
        before = here.servers_cpu()
        body = client.get(f"http://127.0.0.1:{here.ports[0]}{clients_scene.TEN}").content
        assert len(body) == clients_scene.TEN_SIZE
        response = client.post(f"http://127.0.0.1:{here.ports[0]}{clients_scene.UPLOAD}", content=body)
        assert response.content == clients_scene.SMALL_BODY
        assert int(response.headers["x-received"]) >= len(body)
        assert here.servers_cpu() > before


def test_quick_runs_at_the_same_time_come_in_their_order_and_a_failure_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "benchmark"
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$3" = bad ]; then echo "it broke"; exit 1; fi\n'
        'echo "{\\"benchmarks\\": {\\"$3\\": [{\\"title\\": \\"$*\\"}]}}" > "$6"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(at_once.sys, "executable", str(program))
    # `spawn` starts its shim with the real interpreter
    monkeypatch.setattr(at_once, "spawn", subprocess.Popen)
    monkeypatch.setattr(at_once, "end", lambda process, grace: process.wait())
    done = list(at_once.run_at_once(["b", "a", "c"]))
    assert [each.name for each in done] == ["b", "a", "c"]
    assert "-m benchmarks a --quick --json" in json.dumps(done[1].sections)
    with pytest.raises(RuntimeError, match="it broke"):
        list(at_once.run_at_once(["a", "bad"]))


def test_a_run_that_is_told_to_stop_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--quick", "pick", "idle", "--json", str(tmp_path / "x.json")],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: list(tmp_path.glob("disco-etcd*")), timeout=30.0), "idle has begun"
        process.terminate()
        assert process.wait(20) == 128 + 15
    finally:
        process.kill()
        process.wait()
    assert eventually(lambda: not list(tmp_path.glob("disco-*")), timeout=10.0)
