"""The simulator: a seed gives one result, nothing gets lost in it, and it comes to what is known before it is believed."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.sim import __main__ as command
from benchmarks.sim import bins, queues, selection, standing, stories
from benchmarks.sim.bins import throw, twins
from benchmarks.sim.loop import Loop
from benchmarks.sim.measure import FAILED_COUNTS, imbalance, summarize
from benchmarks.sim.pictures import PICTURES, draw
from benchmarks.sim.prequal import Prequal, _Probe, reuse_budget
from benchmarks.sim.references import AlwaysFirst, LeastLoaded, OnePair, Oracle, PlainEwma
from benchmarks.sim.report import Check, Plan, Report, Table, number
from benchmarks.sim.servers import Mode, Server
from benchmarks.sim.theory import (
    erlang_c_time,
    gonnet,
    one_choice_tail,
    queue_time,
    several_choices_tail,
    spread_of_maximum,
)
from benchmarks.sim.work import Work, bimodal, exponential, lognormal, truncated_normal
from benchmarks.sim.world import Result, Sample, Setup, World, simulate
from discoclient.balancing.balancer import BALANCERS, Balancer, LeastRequest, RandomChoice
from discoclient.balancing.endpoint import Endpoint, Ticket
from discoclient.balancing.picker import Picker, TwoChoicesPicker
from discoclient.balancing.weights import Candidates, WeightClasses
from discoclient.calling.ledger import Policies
from discoclient.model.instance import Instance
from discoclient.model.policy import HedgePolicy, OutlierPolicy

ROOT = Path(__file__).parents[2]
BARE = Policies(outlier=OutlierPolicy(max_ejected=0.0))


def everything_wrong(world: World) -> None:
    """One drains and one comes, one crashes, hangs, fails, slows down; and a caller is replaced."""
    leaving, hung, failing, slow, crashing, *_ = world.servers.values()
    world.loop.at(0.4, world.registry.drain, leaving.instance.id)
    world.loop.at(1.2, world.registry.remove, leaving.instance.id)
    world.loop.at(0.4, lambda: world.registry.put(world.add_server(speed=0.5).instance))
    world.loop.at(0.5, hung.hang)
    world.loop.at(0.6, setattr, failing, "mode", Mode.FAILING)
    world.loop.at(0.7, lambda: slow.change(speed=0.1, workers=1))
    world.loop.at(0.9, lambda: slow.change(speed=2.0))
    world.loop.at(0.8, crashing.crash)
    world.loop.at(1.5, world.registry.remove, crashing.instance.id)
    world.loop.at(1.0, world.add_client, 0)


def setup(**changes: Any) -> Setup:
    """Six servers with a hundred requests a second each, at half load."""
    usual: dict[str, Any] = {
        "seed": "a",
        "balancer": "peak_ewma",
        "servers": 6,
        "clients": 3,
        "rate": 300.0,
        "seconds": 2.0,
        "work": exponential(0.04),
    }
    return Setup(**(usual | changes))


TROUBLE: dict[str, Any] = {
    "script": everything_wrong,
    "policies": Policies(hedge=HedgePolicy()),
    "timeout": 0.3,
    "deadline": 0.5,
    "unsafe": 0.3,
    "keepalive": 1.2,
}


def as_json(result: Result) -> str:
    found = [result.samples, {id: list(moments) for id, moments in result.arrivals.items()}]
    return json.dumps([found, dict(result.events), dict(result.stats), result.made])


# ---- one seed, one result


def test_the_same_seed_gives_the_same_json_and_another_one_another() -> None:
    once, twice = (as_json(simulate(setup(**TROUBLE))) for _ in range(2))
    assert once == twice != as_json(simulate(setup(**TROUBLE, seed="b")))


def test_the_hash_seed_of_the_process_makes_no_difference() -> None:
    """Sets of strings are in another order in each process; nothing may depend on it."""
    program = "from tests.benchmarks.test_sim import *; print(as_json(simulate(setup(**TROUBLE))))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ended.stdout.strip() == as_json(simulate(setup(**TROUBLE)))


def test_all_balancers_get_the_same_requests() -> None:
    """Otherwise a comparison compares luck."""

    def due(balancer: str) -> list[float]:
        return sorted(sample.due for sample in simulate(setup(balancer=balancer)).samples)

    assert due("random") == due("peak_ewma") == due("rendezvous")


# ---- virtual time


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), max_size=30))
def test_virtual_time_never_goes_back(plans: list[tuple[float, float]]) -> None:
    loop = Loop()
    seen: list[float] = []

    def happen(more: float | None) -> None:
        seen.append(loop.now)
        if more is not None:
            loop.after(more, happen, None)

    for moment, more in plans:
        loop.at(moment, happen, more)
    loop.run()
    assert seen == sorted(seen)
    assert len(seen) == 2 * len(plans)


def test_what_is_over_cannot_be_planned() -> None:
    loop = Loop()
    loop.at(2.0, lambda: loop.at(1.0, print))
    with pytest.raises(ValueError, match="is over"):
        loop.run()
    with pytest.raises(ValueError, match="is over"):
        loop.at(math.nan, print)


def test_what_happens_at_once_happens_in_the_order_of_asking() -> None:
    loop = Loop()
    seen: list[str] = []
    for word in "abc":
        loop.at(1.0, seen.append, word)
    loop.run()
    assert seen == ["a", "b", "c"]


# ---- nothing gets lost


@settings(max_examples=8, deadline=None)
@given(
    balancer=st.sampled_from(sorted(BALANCERS)),
    seed=st.integers(0, 1000),
    is_hedged=st.booleans(),
    notices=st.booleans(),
)
def test_every_request_ends_once_and_nothing_stays_in_flight(
    balancer: str, seed: int, is_hedged: bool, notices: bool
) -> None:
    policies = Policies(hedge=HedgePolicy() if is_hedged else None)
    changes = {**TROUBLE, "balancer": balancer, "seed": str(seed), "policies": policies, "notices": notices}
    result = simulate(setup(**changes, rate=150.0))
    assert len(result.samples) == result.made > 0
    assert result.left_in_flight == 0
    assert all(sample.latency >= 0.0 for sample in result.samples)
    assert sum(map(len, result.arrivals.values())) <= sum(sample.attempts for sample in result.samples)


def test_a_ticket_that_nobody_closes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ticket, "close", lambda self: None)
    with pytest.raises(AssertionError, match="left in flight"):
        simulate(setup())


def test_an_answer_that_never_comes_is_noticed() -> None:
    def script(world: World) -> None:
        world.loop.at(1.0, next(iter(world.servers.values())).hang)

    with pytest.raises(AssertionError, match="were made"):
        simulate(setup(script=script, timeout=math.inf))


# ---- what is known: balls into bins


def test_the_fullest_bin_comes_to_what_theory_says() -> None:
    for balancer, choices in ((RandomChoice(), 1), (OnePair(), 2)):
        maxima = [max(throw(balancer, twins(1000), Random(f"{choices}/{run}"))) for run in range(10)]
        expected, low, high = spread_of_maximum(bins.tail(choices), 1000)
        assert low <= min(maxima) <= max(maxima) <= high
        assert mean(maxima) == pytest.approx(expected, abs=0.9)


def test_the_second_look_is_no_worse_than_two_choices() -> None:
    def full(balancer: Balancer) -> int:
        return sum(load >= 3 for run in range(5) for load in throw(balancer, twins(2000), Random(run)))

    assert full(LeastRequest()) < full(OnePair())


class TakesTheFirst:
    """Two choices, of which it takes the first whatever they have: a comparison that got lost."""

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return TwoChoicesPicker(WeightClasses(endpoints), lambda endpoint, now: 0.0, rng)


def test_a_picker_that_never_compares_has_the_load_of_one_choice() -> None:
    maxima = [max(throw(TakesTheFirst(), twins(1000), Random(run))) for run in range(10)]
    assert mean(maxima) > spread_of_maximum(bins.tail(2), 1000)[2]
    assert mean(maxima) == pytest.approx(spread_of_maximum(bins.tail(1), 1000)[0], abs=0.9)


def test_a_picker_that_always_takes_the_first_puts_everything_into_one_bin() -> None:
    assert max(throw(AlwaysFirst(), twins(100), Random(1))) == 100
    alone = simulate(setup(balancer=lambda world, rng: AlwaysFirst(), retries=0, policies=BARE))
    spread = simulate(setup(balancer="random", retries=0, policies=BARE))
    assert [len(moments) > 0 for moments in alone.arrivals.values()] == [True, *[False] * 5]
    assert summarize(alone.samples).errors > 0.3 > 0.0 == summarize(spread.samples).errors


@pytest.mark.parametrize("balancer", [RandomChoice(), LeastRequest()], ids=["random", "least_request"])
def test_twins_are_as_good_as_endpoints_of_their_own(balancer: Any) -> None:
    instance = Instance(service="bins", id="instance", host="127.0.0.1", port=80)
    alone = [Endpoint(instance, now=0.0) for _ in range(500)]
    assert throw(balancer, alone, Random(1)) == throw(balancer, twins(500), Random(1))


def test_theory_gives_the_numbers_that_are_printed() -> None:
    """tanh 1 solves the first of the equations; 5.43 and 2.61 stand in Mitzenmacher's table (2001)."""
    two = several_choices_tail(2)
    assert two[1] == pytest.approx(math.tanh(1.0), abs=1e-9)
    assert two[2:5] == pytest.approx([0.2295, 0.0089, 0.000006], abs=5e-5)
    one = one_choice_tail()
    assert one[1] == pytest.approx(1 - math.exp(-1))
    assert sum(one[1:]) == pytest.approx(1.0)  # a ball a bin
    assert sum(two[1:]) == pytest.approx(1.0)
    assert queue_time(0.99, 2) == pytest.approx(5.4320, abs=1e-4)
    assert queue_time(0.9, 2) == pytest.approx(2.6141, abs=1e-4)
    assert queue_time(0.9, 1) == erlang_c_time(0.9, 1) == pytest.approx(10.0)
    assert gonnet(1_000_000) == pytest.approx(spread_of_maximum(one, 1_000_000)[0], abs=0.2)


# ---- what is known: queues


@pytest.mark.parametrize(("rule", "choices"), [("random", 1), ("least_request, one pair", 2)])
def test_queues_take_the_time_that_theory_says(rule: str, choices: int) -> None:
    found = queues.wait_in_queues(rule, 0.7, 120.0, "1").mean
    assert found == pytest.approx(queue_time(0.7, choices), rel=0.1)


def test_a_server_with_four_workers_is_a_queue_with_four_workers() -> None:
    alone = setup(
        servers=1,
        clients=1,
        rate=0.8 * 100.0,
        seconds=150.0,
        policies=BARE,
        retries=0,
        timeout=math.inf,
        trip=0.0,
        news=(0.0, 0.0),
    )
    assert summarize(simulate(alone).samples).mean / 0.04 == pytest.approx(erlang_c_time(0.8, 4), rel=0.1)


@pytest.mark.parametrize(
    "work", [exponential(0.04), lognormal(0.04), lognormal(0.04, 0.5), bimodal(0.04), truncated_normal(0.04)]
)
def test_service_times_have_their_mean(work: Work) -> None:
    rng = Random(1)
    assert mean(work(rng) for _ in range(20_000)) == pytest.approx(0.04, rel=0.06)


# ---- servers


class Asked:
    """A request of the test's."""

    def __init__(self, loop: Loop, work: float) -> None:
        self.work = work
        self.is_over = False
        self.ends: list[tuple[float, object]] = []
        self._loop = loop

    def answer(self, status: int) -> None:
        self.ends.append((round(self._loop.now, 9), status))

    def refuse(self) -> None:
        self.ends.append((round(self._loop.now, 9), "refused"))

    def reset(self) -> None:
        self.ends.append((round(self._loop.now, 9), "reset"))


@pytest.fixture
def loop() -> Loop:
    return Loop()


def serve(loop: Loop, **options: Any) -> Server:
    return Server(loop, Instance(service="sim", id="instance", host="127.0.0.1", port=80), **options)


def ask(loop: Loop, server: Server, work: float, at: float = 0.0) -> Asked:
    asked = Asked(loop, work)
    loop.at(at, server.accept, asked)
    return asked


def test_a_server_does_as_many_at_once_as_it_has_workers_and_the_others_wait(loop: Loop) -> None:
    server = serve(loop, workers=2)
    asked = [ask(loop, server, 1.0) for _ in range(3)]
    loop.run()
    assert [each.ends for each in asked] == [[(1.0, 200)], [(1.0, 200)], [(2.0, 200)]]
    assert server.load == 0


def test_what_runs_goes_on_at_the_new_speed(loop: Loop) -> None:
    server = serve(loop, workers=1)
    asked, waiting = ask(loop, server, 1.0), ask(loop, server, 1.0)
    loop.at(0.5, lambda: server.change(speed=0.1))
    loop.at(1.5, lambda: server.change(speed=2.0))
    loop.run()
    assert asked.ends == [(1.7, 200)]  # half in 0.5 s, a tenth in the next one, the rest twice as fast
    assert waiting.ends == [(2.2, 200)]


def test_a_server_that_notices_drops_what_nobody_waits_for(loop: Loop) -> None:
    for notices, ends in ((True, 1.0), (False, 1.5)):
        server, began = serve(loop, workers=1, notices=notices), loop.now
        left, other = ask(loop, server, 1.0, began), ask(loop, server, 0.5, began)
        loop.at(began + 0.5, server.abandon, left)
        loop.run()
        assert other.ends == [(began + ends, 200)]


def test_ways_to_fail(loop: Loop) -> None:
    crashing, hung, failing = serve(loop), serve(loop), serve(loop, mode=Mode.FAILING)
    broken, silent, refused = ask(loop, crashing, 1.0), ask(loop, hung, 1.0), ask(loop, failing, 1.0)
    loop.at(0.5, crashing.crash)
    loop.at(0.5, hung.hang)
    after = ask(loop, crashing, 1.0, 0.6)
    loop.run()
    assert broken.ends == [(0.5, "reset")]
    assert after.ends == [(0.6, "refused")]
    assert refused.ends == [(0.001, 503)]
    assert silent.ends == []
    assert (crashing.load, hung.load, failing.load) == (0, 1, 0)


# ---- every knob does something


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("seed", "b"),
        ("balancer", "random"),
        ("servers", 7),
        ("clients", 2),
        ("rate", 310.0),
        ("seconds", 1.9),
        ("work", exponential(0.041)),
        ("workers", 2),
        ("script", lambda world: None),
        ("policies", BARE),
        ("retries", 0),
        ("timeout", 0.2),
        ("deadline", 0.2),
        ("trip", 0.001),
        ("news", (0.1, 0.2)),
        ("unsafe", 0.0),
        ("keepalive", 5.0),
        ("notices", True),
        ("subset", 4),
        ("redraws", True),
    ],
)
def test_a_knob_that_is_turned_changes_what_comes_out(knob: str, value: Any) -> None:
    before = replace(setup(**TROUBLE), seconds=2.0)
    assert as_json(simulate(before)) != as_json(simulate(replace(before, **{knob: value})))


def test_keys_count_where_a_balancer_heeds_them() -> None:
    few, many = (simulate(setup(balancer="rendezvous", keys=keys, rate=100.0)) for keys in (1, 200))
    most = [max(map(len, result.arrivals.values())) / result.made for result in (few, many)]
    assert most[0] > 2 * most[1]


def test_a_client_takes_no_older_news_for_new_ones() -> None:
    world = World(setup(news=(0.0, 1.0)))
    servers = [world.add_server() for _ in range(8)]
    client = world.add_client()
    for server in servers:
        world.registry.put(server.instance)
    world.loop.run()
    assert set(client.known.endpoints) == set(world.servers)


def test_a_registry_that_forgets_everybody_takes_nobody_down() -> None:
    """The real guard against mass disappearance; what has drained is really gone."""

    def forget(world: World) -> None:
        world.loop.at(0.5, lambda: world.registry.remove(*world.servers))

    def drain(world: World) -> None:
        world.loop.at(0.3, lambda: world.registry.drain(*world.servers))
        forget(world)

    assert summarize(simulate(setup(script=forget)).samples).errors == 0
    assert summarize(simulate(setup(script=drain)).samples, after=0.6).errors == 1


# ---- the references


def test_prequals_reuse_budget_is_that_of_the_paper() -> None:
    assert reuse_budget(100, 16) == pytest.approx(1.316, abs=0.001)
    assert reuse_budget(10, 16) == 1.0  # more answers than servers


def probes(*found: tuple[int, float]) -> tuple[Any, list[str]]:
    """A pool with those (rif, latency), and the names of the endpoints."""
    world = World(setup())
    endpoints = [Endpoint(world.add_server().instance, now=0.0) for _ in found]
    pool: Any = Prequal(world).picker(Candidates.of(endpoints), Random(1))
    pool._probes = [_Probe(each, rif, latency, 0.0, 9) for each, (rif, latency) in zip(endpoints, found)]
    pool._sorted = [2] * 10
    return pool, [each.id for each in endpoints]


def test_prequal_takes_the_fastest_of_the_cold_and_the_emptiest_of_the_hot() -> None:
    pool, ids = probes((9, 0.001), (2, 0.03), (0, 0.04))
    assert pool.pick(0.0).id == ids[1]
    pool, ids = probes((9, 0.001), (8, 0.03), (7, 0.04))
    assert pool.pick(0.0).id == ids[2]


def test_prequal_forgets_answers_that_are_old() -> None:
    pool, _ = probes((9, 0.001), (2, 0.03), (0, 0.04))
    pool.pick(5.0)
    assert pool._probes == []


@pytest.mark.parametrize(
    "maker",
    [
        lambda world, rng: LeastLoaded(),
        lambda world, rng: PlainEwma(),
        lambda world, rng: Prequal(world),
        lambda world, rng: Oracle(world),
    ],
    ids=["least loaded", "plain EWMA", "Prequal", "oracle"],
)
def test_a_reference_keeps_away_from_a_slow_server_and_round_robin_does_not(maker: Any) -> None:
    def script(world: World) -> None:
        next(iter(world.servers.values())).change(speed=0.1)

    def share(balancer: Any) -> float:
        result = simulate(setup(balancer=balancer, script=script, seconds=6.0, retries=0, policies=BARE))
        return len(next(iter(result.arrivals.values()))) / result.made

    assert share(maker) < 0.7 / 6 < share("round_robin")


# ---- what is measured


def test_a_failed_request_counts_as_a_long_one() -> None:
    found = summarize(
        [Sample(0.0, 0.01, 1, None), Sample(1.0, 0.01, 2, "503"), Sample(9.0, 9.0, 1, None)], before=5.0
    )
    assert (found.requests, found.errors, found.attempts) == (2, 0.5, 1.5)
    assert (found.p50, found.p99) == (0.01, FAILED_COUNTS)


def test_imbalance_is_the_most_that_one_got_of_those_that_were_ready() -> None:
    result = Result([], {"a": [0.1, 0.2, 0.3], "b": [0.4], "late": [0.5] * 9}, {}, {}, 0, 0)
    ready = {"a": (0.0, 9.0), "b": (0.0, 9.0), "late": (0.5, 9.0)}
    assert imbalance(result, ready, window=1.0, after=0.0, before=1.0) == 1.5


# ---- what it shows


def test_round_robin_drowns_in_its_slow_part_and_prequal_and_ours_do_not() -> None:
    """The published shape, in small: just above what servers are promised."""
    shape = selection.QUICK_SHAPES["narrow"]
    p99 = {
        rule: selection.select(rule, 1.2, shape, "1").p99 for rule in ("round_robin", "Prequal", "peak_ewma")
    }
    assert max(p99["Prequal"], p99["peak_ewma"]) < p99["round_robin"] / 3


def test_far_above_what_is_promised_an_even_spread_fails_and_prequal_and_ours_do_not() -> None:
    """The published shape again: most servers have no more than that, and stay so."""
    shape = selection.QUICK_SHAPES["wide"]
    errors = {
        rule: selection.select(rule, 1.74, shape, "1").errors
        for rule in ("round_robin", "Prequal", "peak_ewma")
    }
    assert errors["round_robin"] > 0.25
    assert errors["Prequal"] == errors["peak_ewma"] == 0


def test_the_default_hides_one_that_fails_and_bare_round_robin_does_not() -> None:
    scenario = standing.SCENARIOS["one of ten fails at once"]
    errors = {
        rule: summarize(standing.stand(rule, scenario, 8.0, "1").samples, after=standing.BEGIN).errors
        for rule in ("the default", "round_robin, no retries, no ejection")
    }
    assert errors["the default"] == 0
    assert errors["round_robin, no retries, no ejection"] > 0.05


def test_a_deploy_that_drains_fails_nothing_and_one_that_does_not_does() -> None:
    story = replace(stories.STORIES["shrink"], rate=100.0, end=stories.BEGIN + 2.0)
    careful, _ = stories.tell(story, "peak_ewma", "1")
    careless, _ = stories.tell(story, "peak_ewma", "1", drains=False, retries=0)
    assert [sample for sample in careful.samples if sample.error] == []
    assert len([sample for sample in careless.samples if sample.error]) > 20


# ---- the command


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bins, "QUICK", {1000: 3})
    monkeypatch.setattr(command, "draw", lambda name, data, folder: folder)


@pytest.mark.usefixtures("small")
def test_the_command_writes_tables_for_people_and_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["bins", "--quick", "--out", str(tmp_path), "--seed", "7"]) == 0
    first = (tmp_path / "sim.json").read_text()
    found = json.loads(first)
    assert (found["seed"], found["quick"]) == ("7", True)
    assert [report["name"] for report in found["reports"]] == ["bins"]
    assert (
        "| random, n = 1,000 |"
        in (tmp_path / "sim.md").read_text()
        == capsys.readouterr().out.rstrip() + "\n"
    )
    assert command.main(["bins", "--quick", "--out", str(tmp_path), "--seed", "7"]) == 0
    assert (tmp_path / "sim.json").read_text() == first


@pytest.mark.usefixtures("small")
def test_the_command_fails_when_something_proven_does_not_come_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = bins.Rule(TakesTheFirst(), (2, 2))
    monkeypatch.setitem(bins.RULES, "least_request, one pair", broken)
    assert command.main(["bins", "--quick", "--out", str(tmp_path)]) == 1
    assert "proven, and not reproduced" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"), [(["nonsense"], "there is no nonsense"), (["--docs", "--quick"], "full length")]
)
def test_the_command_says_what_is_wrong_with_its_arguments(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_a_report_says_of_what_is_known_whether_it_holds() -> None:
    checks = [Check("a", "1", "1", True), Check("b", "1", "2", False)]
    table = Report("x", [], {}, checks).check_table()
    assert table is not None
    assert "| b | 1 | 2 | **no** |" in table.markdown()
    assert Report("x", [], {}).check_table() is None


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (1234.5, "1,234"), (12.34, "12.3"), (0.01234, "0.0123"), (1e-9, "1.0e-09")],
)
def test_numbers_have_three_digits(value: float, written: str) -> None:
    assert number(value) == written


def test_tables_go_between_the_markers_of_the_page() -> None:
    page = (ROOT / command.PAGE).read_text()
    tables = Table("T", ("a", "b"), [("1", "2")]).markdown()
    written = command.replace_tables(page, tables)
    assert command.replace_tables(written, tables) == written
    assert tables in written
    with pytest.raises(ValueError, match="markers"):
        command.replace_tables("nothing", tables)


def test_the_page_shows_every_picture() -> None:
    page = (ROOT / command.PAGE).read_text()
    for name in PICTURES:
        image = ROOT / command.IMAGES / f"sim-{name}.png"
        assert f"images/{image.name}" in page
        assert 0 < image.stat().st_size < 150_000


def test_a_picture_is_drawn_from_the_data(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = {
        f"{story}: {rule}": {"p99": [0.1, 0.2, 0.3], "failed": 0, "begin": 1.0, "end": 3.0}
        for story in stories.STORIES
        for rule in BALANCERS
    }
    path = draw("stories", data, tmp_path)
    assert path == tmp_path / "sim-stories.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert draw("nothing", data, tmp_path) is None


def test_experiments_and_pictures_have_the_same_names() -> None:
    assert list(command.EXPERIMENTS) == list(PICTURES)
    assert Plan(True, "1").is_quick
