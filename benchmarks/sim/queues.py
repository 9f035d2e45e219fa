"""Queues that theory knows: the event loop, the servers, the flow and the pickers together, against M/M/1 and the supermarket model."""

from __future__ import annotations

from math import inf

from discoclient.calling.ledger import Policies
from discoclient.model.policy import OutlierPolicy

from .measure import Summary, summarize
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
RULES = {"random": 1, "least_request": 2}


def run(plan: Plan) -> Report:
    rows, checks, data = [], [], []
    for load in LOADS[: 2 if plan.is_quick else None]:
        cells = [f"{load:.2f}"]
        for balancer, choices in RULES.items():
            found = wait_in_queues(balancer, load, 150.0 if plan.is_quick else 1500.0, plan.seed).mean
            known = queue_time(load, choices)
            cells += [f"{found:.3f}", f"{known:.3f}"]
            data.append({"balancer": balancer, "load": load, "found": found, "known": known})
            checks.append(
                Check(
                    f"mean time in {SERVERS} queues at load {load:.2f}, {balancer}",
                    f"{known:.3f}, to within {ALLOWED:.0%}",
                    f"{found:.3f}",
                    abs(found / known - 1) <= (3 if plan.is_quick else 1) * ALLOWED,
                    is_theory=True,
                )
            )
        rows.append(cells)
    table = Table(
        f"Mean time of a request, in mean services: {SERVERS} servers with one worker each, Poisson arrivals, exponential service",
        ("load", "random", "M/M/1", "least_request", "supermarket model"),
        rows,
    )
    return Report("queues", [table], {"runs": data}, checks)


def wait_in_queues(balancer: str, load: float, seconds: float, seed: str) -> Summary:
    """One client that knows everything that is in flight, no network, and nobody gives up."""
    setup = Setup(
        seed=f"{seed}/queues",
        balancer=balancer,
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
