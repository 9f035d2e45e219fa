"""Endpoints to choose from, and what becomes of the choices."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from discoclient.balancing.balancer import find_balancer
from discoclient.balancing.endpoint import Endpoint, Ticket
from discoclient.balancing.preferences import Preferences
from discoclient.balancing.view import View, build_view
from discoclient.model.instance import Instance
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.policy import OutlierPolicy
from discoclient.model.snapshot import Snapshot

__all__ = [
    "BALANCERS",
    "OK",
    "REFUSED",
    "SILENT",
    "eject",
    "end",
    "fleet",
    "instance",
    "observe",
    "play",
    "view",
]

BALANCERS = ["peak_ewma", "least_request", "round_robin", "random", "weighted_round_robin", "rendezvous"]

OK = Outcome(OutcomeKind.RESPONSE, 0.01, 200)
SILENT = Outcome(OutcomeKind.NO_ANSWER, 0.01)
REFUSED = Outcome(OutcomeKind.NOT_SENT, 0.001)


def instance(number: int, **fields: Any) -> Instance:
    return Instance(
        **{"service": "web", "id": f"instance-{number}", "host": "10.0.0.1", "port": 8000 + number} | fields
    )


def fleet(size: int, *, latency: float = 0.0, weights: Sequence[float] = (), **fields: Any) -> list[Endpoint]:
    """*size* endpoints at time 0, with *weights* one after the other."""
    return [
        Endpoint(
            instance(number, **({"weight": weights[number]} if weights else {}) | fields),
            now=0.0,
            latency=latency,
        )
        for number in range(size)
    ]


def view(endpoints: Sequence[Endpoint], balancer: str, *, seed: int = 1) -> View:
    by_id = {endpoint.id: endpoint for endpoint in endpoints}
    snapshot = Snapshot("web", 1, {id: endpoint.instance for id, endpoint in by_id.items()})
    return build_view(snapshot, by_id, Preferences(balancer=find_balancer(balancer)), Random(seed))


def end(ticket: Ticket, outcome: Outcome, now: float) -> None:
    """A request comes to its end, and whatever it says, its endpoint is not ejected for it."""
    ticket.endpoint.learn(ticket, outcome, now, OutlierPolicy(), lambda endpoint: "spared", Random(1))
    ticket.close()


def observe(endpoint: Endpoint, outcome: Outcome, now: float) -> None:
    """A request that begins and ends at once, for what is learnt from it."""
    end(endpoint.start(now), outcome, now)


def eject(endpoint: Endpoint, now: float = 0.0, *, seconds: float = 100.0) -> None:
    """Have it ejected for *seconds* to twice that."""
    ticket = endpoint.start(now)
    policy = OutlierPolicy(base_ejection=seconds * 2, max_ejection=seconds * 2)
    assert endpoint.learn(ticket, REFUSED, now, policy, lambda endpoint: None, Random(1))
    ticket.close()
    assert endpoint.is_ejected(now)


def play(
    chosen: View,
    picks: int,
    *,
    in_flight: int = 0,
    latency: Callable[[Endpoint], float] = lambda endpoint: 0.01,
    now: float = 0.0,
) -> Counter[str]:
    """Who gets how many of *picks*, with up to *in_flight* others under way; the oldest ends first."""
    counts: Counter[str] = Counter()
    open_tickets: deque[Ticket] = deque()
    for _ in range(picks):
        endpoint = chosen.pick(now)
        assert endpoint is not None
        counts[endpoint.id] += 1
        open_tickets.append(endpoint.start(now))
        now += 0.001
        while len(open_tickets) > in_flight:
            ticket = open_tickets.popleft()
            end(ticket, Outcome(OutcomeKind.RESPONSE, latency(ticket.endpoint), 200), now)
    for ticket in open_tickets:
        ticket.close()
    return counts
