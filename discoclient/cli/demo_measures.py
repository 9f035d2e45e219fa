"""What the demo measures, and in which words: requests, acts, claims. Pure: numbers in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = [
    "GAP",
    "Act",
    "Call",
    "Claim",
    "Moved",
    "find_moved",
    "least_share",
    "longest_pause",
    "percent",
    "share",
]

GAP = 1.0
"""Seconds without a request that was tried again, after which the traffic has moved. What comes later are probes."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a caller: who answered (the number in the body), after how many attempts; or the error.

    Times are of the monotonic clock, in seconds. ``post`` is what a POST carried, and no other one does; ``None``: a GET.
    """

    caller: str
    began: float
    ended: float
    number: int | None
    attempts: int = 1
    error: str = ""
    post: int | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """One part of the demo. A call belongs to the act in which it began."""

    number: int
    title: str
    began: float
    ended: float

    def calls(self, calls: Iterable[Call]) -> list[Call]:
        return [call for call in calls if self.began <= call.began < self.ended]


@dataclass(frozen=True, slots=True)
class Claim:
    """``text`` is what had to hold, ``seen`` what was seen of it."""

    text: str
    held: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Moved:
    """How the callers got away from an instance that died.

    ``after`` so many seconds nobody reached for it any more; ``retried`` requests had to be tried again until then; ``probes``
    are those that looked later whether it was back.
    """

    after: float
    retried: int
    probes: int


def find_moved(calls: Iterable[Call], killed_at: float) -> Moved:
    """From the requests that were tried again after *killed_at*."""
    ends = sorted(call.ended for call in calls if call.attempts > 1 and call.ended >= killed_at)
    wave = 0
    last = killed_at
    for end in ends:
        if end - last > GAP:
            break
        last = end
        wave += 1
    return Moved(last - killed_at, wave, len(ends) - wave)


def longest_pause(calls: Iterable[Call], began: float, ended: float) -> float:
    """The longest time between two answers in a row, in seconds."""
    answers = sorted(call.ended for call in calls if not call.error and began <= call.ended <= ended)
    times = [began, *answers, ended]
    return max(after - before for before, after in pairwise(times))


def share(calls: Iterable[Call], number: int, among: int) -> float:
    """What *number* got, where 1 is an equal share among so many instances. 0 if there were no answers."""
    counts = Counter(call.number for call in calls if call.number is not None)
    return counts[number] * among / counts.total() if counts else 0.0


def least_share(calls: Sequence[Call], numbers: Collection[int]) -> float:
    """The `share` of the least busy one."""
    return min(share(calls, number, len(numbers)) for number in numbers)


def percent(got: float) -> str:
    return f"{got * 100:.0f} %"
