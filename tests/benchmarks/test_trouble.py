"""The benchmark of a fleet in trouble: what it reckons with, and that its scene is what it says."""

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import pytest

from benchmarks import trouble, trouble_proxies
from benchmarks.open_loop import Answer, Report, Sample, drive, poisson
from benchmarks.trouble_figures import Run, requests_until_left_alone, times_fair_share
from benchmarks.trouble_proxies import PROXIES, find, running
from benchmarks.trouble_servers import Instance, capacity
from discoclient.system.ports import pick_ports

KINDS = trouble.FLEET


def sample(due: float, latency: float, error: str | None = None, *, late: float = 0.0) -> Sample:
    return Sample(due, late, latency, 0.0, error)


def run_of(*samples: Sample, arrivals: Sequence[Sequence[float]] = ((),) * len(KINDS)) -> Run:
    return Run(4.0, Report(0.0, 1.0, 4.0, list(samples)), KINDS, arrivals)


# ---- the load


def test_the_moments_are_the_same_for_the_same_seed_and_come_at_the_rate() -> None:
    moments = poisson(300.0, 100.0, Random("a"))
    assert moments == poisson(300.0, 100.0, Random("a")) != poisson(300.0, 100.0, Random("b"))
    assert moments == sorted(moments)
    assert 0 < moments[0] < moments[-1] < 100.0
    assert len(moments) == pytest.approx(30_000, rel=0.03)  # five standard deviations


async def test_a_request_is_sent_though_those_before_it_have_no_answer() -> None:
    """A generator that waits for answers would wait here for ever."""
    is_last, sent = asyncio.Event(), 0

    async def send() -> Answer:
        nonlocal sent
        sent += 1
        if sent == 3:
            is_last.set()
        await is_last.wait()
        return Answer(None, 0.0)

    report = await asyncio.wait_for(drive([0.0, 0.001, 0.002], send), 10.0)
    assert [each.due for each in report.samples] == [0.0, 0.001, 0.002]


async def test_latency_counts_from_when_a_request_should_have_been_sent() -> None:
    async def send() -> Answer:
        return Answer("503", 0.0)

    report = await drive([0.0] * 20, send)  # they can't all be sent at once
    assert all(each.latency >= each.late > 0 for each in report.samples)
    assert {each.error for each in report.samples} == {"503"}


# ---- what is read out of a run


def test_a_request_that_failed_fast_does_not_count_as_fast() -> None:
    well = [sample(0.0, 0.01)] * 98
    assert run_of(*well, sample(0.0, 0.02), sample(0.0, 0.02)).latency(0.99) == pytest.approx(20)
    failed = run_of(*well, sample(0.0, 0.02, "503"), sample(0.0, 4.0, "ReadTimeout"))
    assert failed.latency(0.99) == pytest.approx(3000)
    assert failed.latency(1.0) == pytest.approx(4000)
    assert failed.latency(0.5) == pytest.approx(10)
    assert failed.errors == {"503": 1, "ReadTimeout": 1}


def test_the_steady_state_leaves_the_first_seconds_out() -> None:
    run = run_of(sample(0.5, 1.0), sample(2.9, 1.0), sample(3.0, 0.02), sample(3.5, 0.01))
    assert run.latency(1.0) == pytest.approx(1000)
    assert run.latency(1.0, after=3.0) == pytest.approx(20)


@pytest.mark.parametrize(
    ("moments", "until", "count"),
    [
        ([], 12.0, 0),
        ([0.1, 0.2, 0.9, 6.0, 11.0], 12.0, 3),  # a probe now and then is no lapse
        ([0.1, 2.2, 4.0], 12.0, 1),
        ([0.1, 1.0, 2.0, 3.0], 4.0, 4),  # never left alone
        ([0.1, 1.0, 2.0], 4.5, 3),  # from then on to the end
        ([0.1, 1.0, 2.0, 4.1], 4.0, 3),  # a retry after the end
    ],
)
def test_the_hung_instance_is_left_alone_when_it_gets_nothing_for_two_seconds(
    moments: list[float], until: float, count: int
) -> None:
    assert requests_until_left_alone(moments, until=until) == count


def test_the_worst_second_is_found_where_the_whole_run_looks_fair() -> None:
    everything = [second + part / 80 for second in range(4) for part in range(80)]
    mine = [moment for moment in everything if 2.0 <= moment < 2.3]
    shares = partial(times_fair_share, instances=8, seconds=4.0)
    assert shares(mine, everything, length=4.0) == pytest.approx(24 / 320 * 8)
    assert shares(mine, everything, length=1.0) == pytest.approx(24 / 80 * 8)
    assert shares([4.5], [4.5], length=1.0) == 0.0, "after the end nothing is a share"


def test_arrivals_are_told_by_kind_and_counted_from_the_begin() -> None:
    report = [100.0, 1.0, 4.0, [[0.0, 0.0, 0.01, 0.01, None]] * 4]
    arrivals = [[101.0], [], [], [], [], [103.0], [101.5, 100.5], [102.0]]
    run = Run.read(4.0, report, KINDS, arrivals)
    assert run.at("hung") == [0.5, 1.5]
    assert run.at("normal") == [1.0]
    assert run.amplification == 5 / 4
    assert run.failing_share() == pytest.approx(1 / 5 * 8)
    assert run.failing_share(worst_second=True) == pytest.approx(8)
    assert run.busy == 25.0


# ---- the fleet


def test_capacity_is_what_the_normal_and_the_slow_instances_can_do() -> None:
    assert capacity(*KINDS) == pytest.approx(510)
    assert capacity("hung", "failing") == 0


class Caller:
    """In the place of a connection. *log* is where several write into."""

    def __init__(self, log: list["Caller"] | None = None) -> None:
        self.is_gone = False
        self.got: list[int] = []
        self._log = log

    def answer(self, status: int, took: float) -> None:
        self.got.append(status)
        if self._log is not None:
            self._log.append(self)


async def answers(kind: str, *callers: Caller, target: bytes = b"/work") -> Instance:
    instance = Instance(kind, "seed")
    for caller in callers:
        instance.accept(caller, target)  # type: ignore[arg-type]
    return instance


async def test_the_failing_instance_answers_503_at_once_and_the_hung_one_never() -> None:
    one, other = Caller(), Caller()
    failing, hung = await answers("failing", one), await answers("hung", other)
    assert one.got == [503]
    assert other.got == []
    assert len(failing.arrivals) == len(hung.arrivals) == 1


async def test_a_normal_instance_works_on_one_after_the_other_and_not_for_those_who_left() -> None:
    log: list[Caller] = []
    first, gone, last = Caller(log), Caller(log), Caller(log)
    instance = await answers("normal", first, gone, last)
    assert log == [], "nothing is answered at once"
    gone.is_gone = True
    async with asyncio.timeout(10):
        while last not in log:
            await asyncio.sleep(0)
    assert log == [first, last]
    assert first.got == last.got == [200]
    assert len(instance.arrivals) == 3


@pytest.mark.parametrize(
    ("kind", "got"), [("normal", [200]), ("slow", [200]), ("failing", [503]), ("hung", [])]
)
async def test_a_health_check_is_answered_out_of_line_and_not_counted(kind: str, got: list[int]) -> None:
    caller = Caller()
    instance = await answers(kind, caller, target=b"/health")
    assert caller.got == got
    assert instance.arrivals == []


# ---- the proxies


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_is_told_every_instance_and_the_same_timeout(name: str) -> None:
    config = PROXIES[name](7000, [7001, 7002], timeout=0.25)
    assert all(f"127.0.0.1:{port}" in config for port in (7000, 7001, 7002))
    assert len(re.findall(r"\b250ms\b", config)) == 3, "connecting, sending, reading; or checking"
    assert re.search(r"least_?conn\b", config)


def test_each_proxy_makes_three_attempts_and_retries_what_our_side_retries() -> None:
    nginx, haproxy = (PROXIES[name](1, [2], timeout=1.0) for name in ("nginx", "haproxy"))
    assert "proxy_next_upstream error timeout http_502 http_503 http_504;" in nginx
    assert "proxy_next_upstream_tries 3;" in nginx
    assert "retry-on conn-failure empty-response junk-response response-timeout 502 503 504" in haproxy
    assert re.search(r"retries 2\n\s+option redispatch 1\n", haproxy)


def test_a_proxy_that_does_not_start_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(installed()))
    monkeypatch.setitem(trouble_proxies.PROXIES, name, lambda *_, **__: "nonsense\n")
    said = rf"{name} does not listen on \d+: (.|\n)*{name}\.conf"
    with pytest.raises(RuntimeError, match=said), running(name, pick_ports()[0], [1], timeout=1.0):
        pass


def installed() -> list[str]:
    return [name for name in PROXIES if find(name)] or pytest.skip("neither nginx nor HAProxy is installed")


# ---- the sections


def canned(side: str, fleet: Sequence[str], **_: Any) -> Run:
    latency = {"peak_ewma": 0.03, "nginx": 0.1}.get(side, 0.2)
    arrivals = [[0.1, 0.2] for _ in fleet]
    return Run(
        1.0, Report(0.0, 0.1, 1.0, [sample(each / 10, latency) for each in range(10)]), fleet, arrivals
    )


def test_the_aims_are_set_on_our_side_and_on_the_ratio_to_nginx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "measure", canned)
    monkeypatch.setattr(trouble, "find", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(trouble, "version", lambda program: "1.0")
    sections = list(trouble.run(quick=True))
    rows = {row.name: row for section in sections[:2] for row in section.rows}
    ours = "AsyncDiscoClient, peak_ewma"
    assert {name: (row.aim, row.is_met) for name, row in rows.items() if row.aim is not None} == {
        "p99, ours in terms of nginx, least_conn": (0.5, True),
        f"{ours}: failed": (0.0, True),
        f"{ours}: sent for each request made": (1.2, False),
        f"{ours}: to the hung one until left alone": (5.0, True),
        f"{ours}: to the failing one, worst second": (1.0, True),
    }
    assert rows["p99, ours in terms of nginx, least_conn"].median == pytest.approx(0.3)
    assert rows["HAProxy, leastconn: p99"].role == "reference"
    assert all(row.aim is None for row in sections[2].rows)


def test_a_proxy_that_is_not_installed_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "measure", canned)
    monkeypatch.setattr(trouble, "find", lambda name: None)
    first, *others = trouble.run(quick=True)
    assert "nginx, least_conn: left out, since nginx is not installed here." in first.notes
    names = [row.name for section in (first, *others) for row in section.rows]
    assert not [name for name in names if "nginx" in name or "HAProxy" in name]
    assert "AsyncDiscoClient, round_robin: p99" in names


def test_a_generator_that_was_late_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Run(1.0, Report(0.0, 0.1, 1.0, [sample(0.9, 0.1, late=0.05)]), KINDS, [[0.1]] * len(KINDS))
    monkeypatch.setattr(trouble, "find", lambda name: None)
    for measure, is_told in ((canned, False), (lambda *_, **__: late, True)):
        monkeypatch.setattr(trouble, "measure", measure)
        notes = next(iter(trouble.run(quick=True))).notes
        assert any("don't quote" in note for note in notes) is is_told


# ---- for real, in small


def check(run: Run, kinds: Sequence[str]) -> None:
    assert sorted(run.kinds) == sorted(kinds)
    assert run.report.samples
    assert all(each.latency >= 0 for each in run.report.samples)
    assert sum(map(len, run.arrivals)) >= len(run.report.samples)


def test_our_client_meets_the_whole_fleet() -> None:
    run = trouble.measure("peak_ewma", KINDS, rate=100.0, seconds=0.4, seed="smoke")
    check(run, KINDS)
    assert run.at("normal")
    assert run.latency(0.5) > 0


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_hides_the_failing_instance(name: str) -> None:
    """The config is taken, the retries go elsewhere: without them about every second request would fail at first."""
    if not find(name):
        pytest.skip(f"{name} is not installed")
    kinds = ("normal", "failing")
    run = trouble.measure(name, kinds, rate=50.0, seconds=0.4, seed="smoke")
    check(run, kinds)
    assert run.at("failing")
    assert len(run.at("normal")) >= len(run.report.samples) - run.errors.total()
    if name == "nginx":  # HAProxy may choose the same instance again for a retry
        assert not run.errors
