"""The benchmark of deploys: what it reckons with, and what its service and the way of 2014 do. No figure is judged."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import deploy, deploy_bad, deploy_keys, deploy_tables
from benchmarks.deploy_bad import KINDS, Attempt
from benchmarks.deploy_figures import AFTER, WARM_UP, Call, Run, latency, read_calls
from benchmarks.deploy_load import Note
from benchmarks.deploy_nginx import Nginx, main_config, upstream_config
from benchmarks.deploy_picture import draw
from benchmarks.deploy_renderer import Renderer
from benchmarks.deploy_scene import WAYS, Plan, measure
from benchmarks.deploy_service import MOODS, WORK, Connection, Instance
from benchmarks.deploy_stub import cut
from benchmarks.deploy_tables import OURS, SIDES
from benchmarks.deploy_ways import BAKE, Deploy, disco_run
from benchmarks.trouble_figures import FAILED_COUNTS


def call(
    at: float, *, error: str | None = None, method: str = "GET", key: str = "", took: float = 0.02
) -> Call:
    return Call(at, 0.0, took, error, Note(method, key, "" if error else "v1", 1), "kept")


def run_of(*calls: Call, executed: tuple[str, ...] = (), deploys: tuple[Deploy, ...] = ()) -> Run:
    return Run(calls, deploys or (Deploy(10.0, 12.0, None, True, 0),), Counter(executed))


# ---- the figures


def test_calls_are_read_from_the_json_of_a_caller() -> None:
    told = [[100.0, 1.0, 2.0, [[0.5, 0.001, 0.02, 0.0, None]]], [["POST", "a/0", "v1", 2]]]
    (only,) = read_calls("fresh", told)
    assert only == Call(100.5, 0.001, 0.02, None, Note("POST", "a/0", "v1", 2), "fresh")


def test_a_call_belongs_to_a_deploy_from_its_start_until_a_while_after_the_old_version_is_gone() -> None:
    moments = (0.0, WARM_UP, 9.9, 10.0, 12.0, 12.0 + AFTER - 0.01, 12.0 + AFTER)
    run = run_of(*(call(moment) for moment in moments))
    assert [each.at for each in run.during] == [10.0, 12.0, 12.0 + AFTER - 0.01]
    assert [each.at for each in run.outside] == [WARM_UP, 9.9, 12.0 + AFTER], (
        "the very first second is nobody's"
    )
    assert run.times == [2.0]


def test_an_old_version_that_did_not_end_by_itself_was_killed() -> None:
    deploys = tuple(Deploy(1.0, 2.0, None, True, code) for code in (0, -9, 137, 0))
    assert run_of(call(0.0), deploys=deploys).killed == 2


def test_failures_are_counted_by_method_and_by_deploy() -> None:
    deploys = (Deploy(10.0, 11.0, None, True, 0), Deploy(20.0, 21.0, None, True, 0))
    run = run_of(
        call(1.0),
        call(10.5, error="502"),
        call(20.5, error="502", method="POST"),
        call(29.0, error="ReadError", method="POST"),
        deploys=deploys,
    )
    assert (run.count("GET"), run.failed("GET"), run.count("POST"), run.failed("POST")) == (2, 1, 2, 2)
    assert run.failed_by_deploy == [1, 2]
    assert run.errors == {"GET 502": 1, "POST 502": 1, "POST ReadError": 1}


def test_a_post_that_was_executed_is_told_apart_from_one_that_was_executed_twice() -> None:
    run = run_of(
        call(1.0, method="POST", key="a"),
        call(2.0, method="POST", key="b", error="502"),
        call(3.0, method="POST", key="c", error="502"),
        executed=("a", "a", "b"),
    )
    assert run.executed_twice == 1
    assert run.executed_and_failed == 1


def test_a_request_that_failed_fast_does_not_count_as_fast() -> None:
    calls = [
        call(1.0, took=0.02),
        call(2.0, error="502", took=0.001),
        call(3.0, error="ReadTimeout", took=5.0),
    ]
    assert [latency([each], 0.99) for each in calls] == [20.0, FAILED_COUNTS * 1e3, 5000.0]


# ---- the service


class Transport:
    """In the place of a socket."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def connect(instance: Instance) -> tuple[Connection, Transport]:
    connection, transport = Connection(instance), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport


async def answered(transport: Transport) -> bytes:
    async with asyncio.timeout(10):
        while not transport.sent:
            await asyncio.sleep(0.001)
    return transport.sent


async def test_a_post_is_in_the_ledger_before_its_answer_is_sent(tmp_path: Path) -> None:
    with Path(tmp_path, "ledger").open("wb") as ledger:
        connection, transport = connect(Instance("v7", "well", ledger.fileno()))
        connection.data_received(b"POST /work HTTP/1.1\r\nContent-Length: 7\r\n\r\nround")
        assert Path(tmp_path, "ledger").read_text() == "", "half a body is no request"
        connection.data_received(b" 1")
        assert Path(tmp_path, "ledger").read_text() == "round 1\n"
        assert transport.sent == b""
        answer = await answered(transport)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nv7")
    assert not transport.is_closed


@pytest.mark.parametrize(
    "head", [b"GET /work HTTP/1.1\r\nconnection: close\r\n\r\n", b"GET /work HTTP/1.0\r\nHost: a\r\n\r\n"]
)
async def test_who_wants_one_answer_gets_one_and_the_end_of_the_connection(head: bytes) -> None:
    connection, transport = connect(Instance("v1", "well", None))
    connection.data_received(head)
    assert b"\r\nConnection: close\r\n" in await answered(transport)
    assert transport.is_closed


async def test_one_that_leaves_closes_what_is_idle_and_finishes_what_is_not() -> None:
    instance = Instance("v1", "well", None)
    (idle, closed), (busy, open_) = connect(instance), connect(instance)
    busy.data_received(b"GET /work HTTP/1.1\r\n\r\n")
    instance.leave()
    assert (closed.is_closed, open_.is_closed) == (True, False)
    idle.connection_lost(None)
    assert not instance.idle.is_set()
    assert b"\r\nConnection: close\r\n" in await answered(open_)
    busy.connection_lost(None)
    assert instance.idle.is_set()


def test_moods_are_what_health_checks_and_callers_see(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("benchmarks.deploy_service.monotonic", lambda: now)
    well, unready, sickens = (Instance("v1", mood, None) for mood in ("well", "unready", "sickens"))

    def statuses(target: bytes) -> list[int]:
        return [each.respond(b"GET", target, b"")[0] for each in (well, unready, sickens)]

    assert statuses(b"/healthz") == [200, 503, 200]
    now += 2.0
    assert statuses(b"/healthz") == [200, 503, 503]
    assert statuses(b"/work") == [200, 503, 200], "who sickens works as before"
    assert well.respond(b"GET", b"/elsewhere", b"")[0] == 404
    assert WORK[0] <= well.respond(b"GET", b"/work", b"")[1] <= WORK[1]
    assert set(KINDS) == set(MOODS) - {"well"}


def test_the_light_service_waits_for_the_body_and_keeps_what_comes_after_it() -> None:
    request = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
    for end in range(len(request)):
        assert cut(request[:end]) == (b"", request[:end])
    assert cut(request + b"GET") == (b"post / http/1.1\r\ncontent-length: 4", b"GET")


# ---- the way of 2014


async def test_the_keys_are_swapped_by_a_get_and_two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, str] = {}
    asked: list[str] = []

    async def etcd(port: int, what: str, message: dict[str, str]) -> Any:
        asked.append(what)
        if what == "put":
            stored[message["key"]] = message["value"]
            return {}
        return {"kvs": [{"value": stored[message["key"]]}]} if message["key"] in stored else {"count": "0"}

    monkeypatch.setattr(deploy_keys, "_call", etcd)
    await deploy_keys.swap(1, "port", "8000")
    assert asked == ["range", "put"]
    await deploy_keys.swap(1, "port", "8001")
    assert asked[2:] == ["range", "put", "put"]
    assert await deploy_keys.read(1, "/uswitch/experiment/port/current") == "8001"
    assert await deploy_keys.read(1, "/uswitch/experiment/port/previous") == "8000"


async def test_an_answer_of_etcd_that_is_none_is_an_error() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 404 Not Found\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RuntimeError, match="404 Not Found"):
            await deploy_keys.swap(port, "pid", "1")


class FakeNginx(Nginx):
    """Renders for real; what it is told to do is written down, and whether the check is passed is ours to say."""

    def __init__(self, folder: Path, log: list[str], *, is_taken: bool = True) -> None:
        super().__init__(folder, 8080)
        object.__setattr__(self, "log", log)
        object.__setattr__(self, "is_taken", is_taken)

    def _run(self, *words: str) -> bool:
        self.log.append(words[-1])  # type: ignore[attr-defined]
        return bool(self.is_taken)  # type: ignore[attr-defined]


def values(port: int, previous: int | None = None) -> dict[str, str]:
    found = {deploy_keys.key("port", "current"): str(port), deploy_keys.key("pid", "current"): "9"}
    return found if previous is None else found | {deploy_keys.key("pid", "previous"): str(previous)}


@pytest.mark.parametrize("is_careful", [False, True])
def test_the_reload_comes_before_the_end_of_the_old_version(tmp_path: Path, is_careful: bool) -> None:
    log: list[str] = []
    renderer = Renderer(FakeNginx(tmp_path, log), lambda pid: log.append(f"end {pid}"), is_careful=is_careful)
    renderer.begin(values(7001, 41))
    renderer.apply(values(7002, 41))
    assert log == ["-t", "reload"], "the previous pid is one that was there before"
    renderer.apply(values(7002, 42))
    renderer.apply(values(7002, 42))
    assert log == ["-t", "reload", "end 42"], "what stands there already is not done again"
    renderer.apply(values(7003, 43))
    assert log[3:] == ["-t", "reload", "end 43"]
    assert "server 127.0.0.1:7003;" in Path(tmp_path, "experiment-nginx.conf").read_text()


def test_only_the_careful_one_lets_the_old_version_live_when_nginx_refuses_the_new_upstream(
    tmp_path: Path,
) -> None:
    ends: dict[bool, list[int]] = {False: [], True: []}
    for is_careful, ended in ends.items():
        log: list[str] = []
        nginx = FakeNginx(tmp_path / str(is_careful), log, is_taken=False)
        nginx.folder.mkdir()
        Renderer(nginx, ended.append, is_careful=is_careful).apply(values(7002, 42))
        assert log == ["-t"], "no reload"
    assert ends == {False: [42], True: []}


def test_nginx_is_given_the_upstream_of_2014() -> None:
    site = upstream_config(8080, 7001)
    assert "server 127.0.0.1:7001;" in site
    assert "proxy_pass http://experiment_app;" in site
    assert "keepalive" not in site
    assert "include experiment-nginx.conf;" in main_config("experiment-nginx.conf", workers=2)


# ---- the sections


def canned(side: str, plan: Plan, seed: str) -> Run:
    failed = {"kill": 3, "term": 0, "disco": 1}[side]
    deploys = tuple(
        Deploy(10.0 * (1 + each), 10.0 * (1 + each) + 2.0, None, True, 0) for each in range(plan.deploys)
    )
    calls = [call(each / 10, took=0.05 if 100 <= each < 125 else 0.02) for each in range(300)]
    for number in range(failed):
        calls[150 + number] = call(15.0 + number / 10, error="502", method="POST", key="a")
    return Run(calls, deploys, Counter("a"))


def test_the_aims_are_set_on_our_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy_tables, "find", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(deploy_tables, "version", lambda program: "1.0")
    plan = Plan(deploys=1, lead=1.0, period=1.0, rate=1.0)
    runs = {side: [canned(side, plan, "a")] * 3 for side in SIDES}
    sections = [deploy_tables.failures(runs, plan), deploy_tables.latencies(runs)]
    rows = {row.name: row for section in sections for row in section.rows}
    ours = SIDES[OURS][0]
    assert {name: (row.aim, row.is_met) for name, row in rows.items() if row.aim is not None} == {
        f"{ours}: GETs that failed": (0.0, True),
        f"{ours}: POSTs that failed": (0.0, False),
        f"{ours}: POSTs executed twice": (0.0, True),
        f"{ours}: old versions that were killed": (0.0, True),
        f"{ours}: p99, during in terms of outside": (1.5, False),
    }
    assert rows[f"{ours}: POSTs that failed"].rounds == (3,), (
        "the sum of three rounds: a median would hide two of them"
    )
    assert rows[f"{ours}: failed in the worst deploy"].rounds == (1,)
    assert rows[f"{ours}: POSTs executed though they failed"].rounds == (3,)
    assert rows[f"{SIDES['kill'][0]}: POSTs that failed"].rounds == (9,)
    assert rows[f"{ours}: p99 during a deploy"].rounds == pytest.approx((50.0,) * 3)
    assert rows[f"{ours}: from its start to the old one gone"].rounds == (2.0,) * 3
    assert f"{ours}: 3 POST 502." in sections[0].notes


def test_every_side_has_its_way_and_nginx_is_left_out_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert SIDES.keys() == WAYS.keys()
    monkeypatch.setattr(deploy_tables, "find", lambda name: None)
    assert deploy_tables.present() == [OURS]


def test_a_bad_deploy_is_judged_by_what_failed_and_by_the_old_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = {
        "kill": Attempt(requests=10, failed=4, took=None, is_harmless=False),
        "disco": Attempt(requests=10, failed=0, took=2.5, is_harmless=True),
    }
    monkeypatch.setattr(deploy_bad, "present", lambda: list(SIDES))
    monkeypatch.setattr(deploy_bad, "try_bad", lambda side, mood, plan, seed: tried[side])
    section = deploy_bad.bad_section(
        deploy_bad.BadPlan(tuple(KINDS), rounds=2, rate=1.0, lead=1.0, seconds=1.0)
    )
    found = [(row.name.rpartition(": ")[2], row.role, row.rounds, row.aim) for row in section.rows[:5]]
    assert found == [
        ("failed", "reference", (8,), None),
        ("old version touched", "reference", (2,), None),
        ("failed", "ours", (0,), 0.0),
        ("old version touched", "ours", (0,), 0.0),
        ("until it gave up", "ours", (2.5, 2.5), None),
    ]


def test_a_side_that_is_unknown_is_an_error_that_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        deploy.main(["nobody"])
    assert "there are kill, term, disco" in capsys.readouterr().err


def test_the_picture_has_a_panel_for_each_side(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    plan = Plan(deploys=2, lead=1.0, period=10.0, rate=1.0)
    heights = []
    for sides in (("kill",), tuple(SIDES)):
        path = draw({side: [canned(side, plan, "a")] for side in sides}, tmp_path / "pictures" / "deploy.png")
        assert path is not None
        with image.open(path) as picture:
            heights.append(picture.size[1])
    assert heights[0] < heights[1]


def test_disco_run_is_told_what_the_contract_names() -> None:
    words = disco_run("etcd://127.0.0.1:1", ["server", "{port}"], "--bake", BAKE)
    assert words[-3:] == ["--", "server", "{port}"]
    assert "--replace" in words
    assert words[:2] == ["--registry", "etcd://127.0.0.1:1"]
    assert words.index("--registry") < words.index("run") < words.index("experiment") < words.index("--bake")


# ---- for real, in small


@pytest.mark.timeout(120)
@pytest.mark.parametrize("side", WAYS)
def test_each_way_replaces_the_old_version(side: str) -> None:
    if side not in deploy_tables.present():
        pytest.skip("nginx is not installed")
    run = measure(side, Plan(deploys=1, lead=0.5, period=3.5, rate=60.0), "smoke 1")
    (only,) = run.deploys
    assert only.was_replaced
    assert only.old_code == (-9 if side == "kill" else 0)
    answered = [each.note.by for each in run.calls if each.error is None]
    assert answered[0] == "v1"
    assert answered[-1] == "v2"
    assert {each.connections for each in run.calls} == {"kept", "fresh"}
    assert run.executed_twice == 0
    done = {each.note.key for each in run.calls if each.note.method == "POST" and each.error is None}
    assert done
    assert done <= run.executed.keys(), "every POST that was answered was executed"
    if side != "kill":
        assert not run.errors


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mood", ["unready", "sickens"])
def test_a_bad_version_touches_nobody(mood: str) -> None:
    plan = deploy_bad.BadPlan((mood,), rounds=1, rate=60.0, lead=0.2, seconds=2.0)
    tried = deploy_bad.try_bad(OURS, mood, plan, "smoke 1")
    assert tried.requests > 0
    assert tried.failed == 0
    assert tried.is_harmless
    assert tried.took is not None
