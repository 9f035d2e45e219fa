"""Queues that theory knows: the event loop, the servers, the flow and the pickers together, against M/M/1 and the
supermarket model.
"""

from __future__ import annotations

from math import inf

from discoclient.calling.ledger import Policies
from discoclient.model.policy import OutlierPolicy

from .measure import Summary, summarize
from .references import OnePair
from .report import Check, Plan, Report, Table
from .theory import queue_time
from .work import exponential
from .world import Setup, simulate

__all__ = ["run", "wait_in_queues"]

SERVERS = 100
WARM_UP = 0.25
"""Of the time: the queues are empty in the beginning."""
ALLOWED = 0.05
"""That a mean may be off: theory is for infinitely many servers and for ever."""
LOADS = (0.5, 0.7, 0.8, 0.9)
RULES = {"random": (1, 1), "least_request, one pair": (2, 2), "least_request": (2, 4)}
"""By how many choices, at least and at most, see `bins`."""


def run(plan: Plan) -> Report:
    rows, checks, data = [], [], []
    allowed = (3 if plan.is_quick else 1) * ALLOWED
    for load in LOADS[: 2 if plan.is_quick else None]:
        cells = [f"{load:.2f}"]
        for name, (least, most) in RULES.items():
            found = wait_in_queues(name, load, 150.0 if plan.is_quick else 1200.0, plan.seed).mean
            high, low = queue_time(load, least), queue_time(load, most)
            cells += [f"{found:.3f}", f"{high:.3f}" if least == most else f"{low:.3f} to {high:.3f}"]
            data.append({"rule": name, "load": load, "found": found, "known": [low, high]})
            checks.append(
                Check(
                    f"mean time in {SERVERS} queues at load {load:.2f}, {name}",
                    f"{cells[-1]}, to within {allowed:.0%}",
                    f"{found:.3f}",
                    low * (1 - allowed) <= found <= high * (1 + allowed),
                    is_theory=True,
                )
            )
        rows.append(cells)
    table = Table(
        f"Mean time of a request, in mean services: {SERVERS} servers with one worker each",
        (
            "load",
            "random",
            "M/M/1",
            "least_request, one pair",
            "two choices",
            "least_request",
            "four to two choices",
        ),
        rows,
    )
    return Report("queues", [table], {"runs": data}, checks)


def wait_in_queues(rule: str, load: float, seconds: float, seed: str) -> Summary:
    """One client that knows everything that is in flight, no network, and nobody gives up."""
    setup = Setup(
        seed=f"{seed}/queues",
        balancer=(lambda world, rng: OnePair()) if "one pair" in rule else rule,
        servers=SERVERS,
        clients=1,
        rate=load * SERVERS,
        seconds=seconds,
        work=exponential(1.0),
        workers=1,
        policies=Policies(outlier=OutlierPolicy(max_ejected=0.0)),
        retries=0,
        timeout=inf,
        trip=0.0,
        news=(0.0, 0.0),
    )
    return summarize(simulate(setup).samples, after=WARM_UP * seconds)
