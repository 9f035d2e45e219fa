"""Where the default stands: what a caller sees of a fleet in trouble, with ``peak_ewma``, retries and ejection as they
are shipped.
 An instance does a hundred requests a second (four workers, 40 ms each on average, lognormal). Load is 60 % of what the
fleet can do with what is wrong in it. What is wrong begins after some seconds, and all requests from then on count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from discoclient.calling.ledger import Policies
from discoclient.model.policy import HedgePolicy, OutlierPolicy

from .antagonists import BRIEF, antagonists, capacity
from .measure import Summary, summarize
from .report import Plan, Report, Table, milliseconds, percent
from .servers import Mode, Server
from .work import lognormal
from .world import Result, Setup, World, simulate

__all__ = ["FAULTS", "MEAN", "RULES", "SCENARIOS", "Scenario", "run", "stand"]

MEAN = 0.04
WORKERS = 4
EACH = WORKERS / MEAN
"""Requests a second that one instance can do."""
LOAD = 0.6
BEGIN = 5.0
"""When it goes wrong."""

FAULTS: Mapping[str, tuple[float, Callable[[Server], None]]] = {
    "well": (1.0, lambda server: None),
    "slow": (0.1, lambda server: server.change(speed=0.1)),
    "hung": (0.0, lambda server: server.hang()),
    "failing": (0.0, lambda server: setattr(server, "mode", Mode.FAILING)),
}
"""What one can still do, and how it comes to that."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """``faults``: of the last instances. ``load``: of what the fleet can do."""

    instances: int
    clients: int
    seconds: float
    faults: Sequence[str] = ()
    load: float = LOAD
    has_antagonists: bool = False

    @property
    def rate(self) -> float:
        if self.has_antagonists:
            return self.load * self.instances * EACH * capacity(BRIEF)
        well = self.instances - len(self.faults)
        return self.load * EACH * (well + sum(FAULTS[fault][0] for fault in self.faults))

    def script(self, world: World) -> None:
        if self.has_antagonists:
            antagonists(BRIEF)(world)
        servers = list(world.servers.values())
        for server, fault in zip(servers[len(servers) - len(self.faults) :], self.faults):
            world.loop.at(BEGIN, FAULTS[fault][1], server)


SCENARIOS: Mapping[str, Scenario] = {
    "all ten well": Scenario(10, 10, 45.0),
    "one of ten 10 times slower": Scenario(10, 10, 45.0, ("slow",)),
    "one of ten hangs": Scenario(10, 10, 45.0, ("hung",)),
    "one of ten fails at once": Scenario(10, 10, 45.0, ("failing",)),
    "of eight, one slow, one hung, one failing": Scenario(8, 10, 45.0, ("slow", "hung", "failing")),
    "ten with antagonists, load 80 %": Scenario(10, 10, 30.0, load=0.8, has_antagonists=True),
    "one of three slow, one request at a time": Scenario(3, 1, 600.0, ("slow",), load=0.04),
}
_BARE = Policies(outlier=OutlierPolicy(max_ejected=0.0))
RULES: Mapping[str, tuple[str, Policies, int | None]] = {
    "the default": ("peak_ewma", Policies(), None),
    "the default, hedged": ("peak_ewma", Policies(hedge=HedgePolicy()), None),
    "least_request": ("least_request", Policies(), None),
    "round_robin": ("round_robin", Policies(), None),
    "round_robin, no retries, no ejection": ("round_robin", _BARE, 0),
}
"""A balancer, the policies, and how many retries if not as the policies say."""
SIZES = (3, 10, 100)
"""Of instances."""
CALLERS = (1, 10, 100)
FACES = ("the default", "round_robin")


def run(plan: Plan) -> Report:
    scenarios: list[Sequence[str]] = []
    data: dict[str, object] = {}
    for name, scenario in SCENARIOS.items():
        seconds = BEGIN + (scenario.seconds - BEGIN) / (12 if plan.is_quick else 1)
        for rule in RULES:
            result = stand(rule, scenario, seconds, plan.seed)
            summary = summarize(result.samples, after=BEGIN)
            data[f"{name}/{rule}"] = summary.to_json()
            scenarios.append((f"{name}: {rule}", *_cells(summary), *_shares(result, scenario, seconds)))
    tables = [
        Table(
            "Where the default stands: a caller's view",
            ("", "p50, ms", "p99, ms", "p99.9, ms", "failed", "attempts", "the bad ones got"),
            scenarios,
            [_ABOUT],
        )
    ]
    tables += [_sizes(fault, plan, data) for fault in ("well", "slow", "hung")]
    return Report("standing", tables, data)


_ABOUT = (
    "*failed*: of all requests, and each counts for 3 s at least. *attempts*: for each request. *the bad ones got*: of "
    "the fair share of one instance, in the order of the faults."
)


def stand(rule: str, scenario: Scenario, seconds: float, seed: str) -> Result:
    balancer, policies, retries = RULES[rule]
    setup = Setup(
        seed=f"{seed}/standing",
        balancer=balancer,
        servers=scenario.instances,
        clients=scenario.clients,
        rate=scenario.rate,
        seconds=seconds,
        work=lognormal(MEAN, 0.8),  # hardly any takes longer than an attempt may
        workers=WORKERS,
        script=scenario.script,
        policies=policies,
        retries=retries,
    )
    return simulate(setup)


def _cells(summary: Summary) -> Sequence[str]:
    times = (milliseconds(each) for each in (summary.p50, summary.p99, summary.p999))
    return (*times, percent(summary.errors), f"{summary.attempts:.3f}")


def _shares(result: Result, scenario: Scenario, seconds: float) -> Sequence[str]:
    arrivals = [sum(BEGIN <= moment < seconds for moment in moments) for moments in result.arrivals.values()]
    fair = sum(arrivals) / len(arrivals)
    bad = arrivals[len(arrivals) - len(scenario.faults) :]
    return (", ".join(f"{got / fair:.2f}" for got in bad) if scenario.faults else "",)


def _sizes(fault: str, plan: Plan, data: dict[str, object]) -> Table:
    rows = []
    for instances in SIZES[: 1 if plan.is_quick else None]:
        for rule in FACES:
            cells = [f"{instances} instances: {rule}"]
            for clients in CALLERS:
                length = (12.0 if instances == SIZES[-1] else 35.0) / (8 if plan.is_quick else 1)
                faults = () if fault == "well" else (fault,)
                scenario = Scenario(instances, clients, BEGIN + length, faults)
                result = stand(rule, scenario, BEGIN + length, plan.seed)
                summary = summarize(result.samples, after=BEGIN)
                data[f"sizes/{fault}/{instances}/{clients}/{rule}"] = summary.to_json()
                p50, p99, p999 = (milliseconds(each) for each in (summary.p50, summary.p99, summary.p999))
                cells.append(
                    f"{p50} / {p99} / {p999}"
                    + (f", {percent(summary.errors)} failed" if summary.errors else "")
                )
            rows.append(cells)
    what = "all well" if fault == "well" else f"one {'10 times slower' if fault == 'slow' else 'hangs'}"
    return Table(
        f"Sizes, {what}: p50 / p99 / p99.9 in ms",
        ("", *(f"{clients} client{'s' if clients > 1 else ''}" for clients in CALLERS)),
        rows,
    )
