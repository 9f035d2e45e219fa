"""What came of the requests, in numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

__all__ = ["BOUNDS", "Counts"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds. The upper bounds of the histogram's buckets; what is slower falls into one more."""


class Counts:
    """Of one service. Only ever touched on the loop of the proxy.

    ``statuses``: answers given, by the first digit. ``failed``: those of them that we had to give ourselves (502, 503, 504) or
    that broke off. ``seconds``: the histogram's sum. ``received`` and ``sent``: bytes of bodies, from and to clients.
    """

    __slots__ = (
        "failed",
        "histogram",
        "in_flight",
        "reasons",
        "received",
        "requests",
        "seconds",
        "sent",
        "statuses",
        "tunnels",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.failed = 0
        self.in_flight = 0
        self.tunnels = 0
        """Of those in flight, how many are raw connections."""
        self.statuses = [0] * 6
        self.histogram = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.received = 0
        self.sent = 0
        self.reasons: Counter[str] = Counter()
        """Why there was no answer of an instance to pass on."""

    def answered(self, status: int, seconds: float) -> None:
        """A request is over, *seconds* after its head was here."""
        self.statuses[min(status // 100, 5)] += 1  # what is beyond counts as 5xx (RFC 9110, 15)
        self.seconds += seconds
        self.histogram[bisect_left(BOUNDS, seconds)] += 1
