"""What is read out of a run of deploys: from what the callers noted, what the service executed, and when deploys were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .deploy_load import Note
from .deploy_ways import Deploy
from .figures import percentile
from .open_loop import Sample
from .trouble_figures import FAILED_COUNTS

__all__ = ["AFTER", "WARM_UP", "Call", "Run", "latency", "read_calls"]

AFTER = 0.5
"""Seconds after a deploy that still belong to it: what it broke may show late."""
WARM_UP = 1.0
"""Seconds at the begin of the load that count for nothing but failures."""


class Call(NamedTuple):
    at: float
    """`monotonic`, when it was due."""
    late: float
    latency: float
    error: str | None
    note: Note
    connections: str

    @property
    def waited(self) -> float:
        """Seconds that it cost the caller: who fails fast is not fast."""
        return self.latency if self.error is None else max(self.latency, FAILED_COUNTS)


def read_calls(connections: str, told: Any) -> list[Call]:
    """The calls of one caller, from the JSON of its `Told`."""
    (began, _, _, samples), notes = told
    pairs = zip((Sample(*each) for each in samples), (Note(*each) for each in notes), strict=True)
    return [
        Call(began + sample.due, sample.late, sample.latency, sample.error, note, connections)
        for sample, note in pairs
    ]


@dataclass(frozen=True)
class Run:
    """One way, once, with as many deploys as were planned."""

    calls: Sequence[Call]
    """Of all callers, in the order in which they were due."""
    deploys: Sequence[Deploy]
    executed: Counter[str]
    """How often the service began the POST with that id."""

    def count(self, method: str) -> int:
        return sum(call.note.method == method for call in self.calls)

    def failed(self, method: str) -> int:
        return sum(call.error is not None for call in self.calls if call.note.method == method)

    @property
    def errors(self) -> Counter[str]:
        """What went wrong, by method and error."""
        return Counter(f"{call.note.method} {call.error}" for call in self.calls if call.error is not None)

    @property
    def executed_twice(self) -> int:
        return sum(times > 1 for times in self.executed.values())

    @property
    def executed_and_failed(self) -> int:
        """POSTs that were begun, and their callers told that they failed: who sends them again does it twice."""
        return sum(
            self.executed[call.note.key] > 0
            for call in self.calls
            if call.error is not None and call.note.method == "POST"
        )

    @property
    def tried_again(self) -> int:
        return sum(call.note.attempts > 1 for call in self.calls)

    @property
    def during(self) -> list[Call]:
        return [call for call in self.calls if self._deploy_at(call.at) is not None]

    @property
    def outside(self) -> list[Call]:
        """What came when nothing was deployed, the begin left out."""
        begin = self.calls[0].at + WARM_UP
        return [call for call in self.calls if call.at >= begin and self._deploy_at(call.at) is None]

    @property
    def failed_by_deploy(self) -> list[int]:
        """From the start of each deploy to the start of the next."""
        starts = [each.began for each in self.deploys]
        until = [*starts[1:], float("inf")]
        moments = [call.at for call in self.calls if call.error is not None]
        return [sum(one <= at < other for at in moments) for one, other in zip(starts, until, strict=True)]

    @property
    def unloaded(self) -> int:
        """Deploys that were not over when the last request was due: they took too long for the plan."""
        return sum(deploy.ended + AFTER > self.calls[-1].at for deploy in self.deploys)

    @property
    def killed(self) -> int:
        """Old versions that did not end by themselves."""
        return sum(deploy.old_code != 0 for deploy in self.deploys)

    @property
    def times(self) -> list[float]:
        """Seconds from the start of each new version to the end of the old one."""
        return [deploy.ended - deploy.began for deploy in self.deploys]

    def late(self, share: float) -> float:
        """Milliseconds that *share* of the requests were at most sent late."""
        return percentile((call.late for call in self.calls), share) * 1e3

    def _deploy_at(self, moment: float) -> Deploy | None:
        return next(
            (each for each in self.deploys if each.began <= moment < each.ended + AFTER),
            None,
        )


def latency(calls: Iterable[Call], share: float) -> float:
    """Milliseconds within which *share* of the *calls* were answered; a failed one counts as `FAILED_COUNTS`."""
    return percentile((call.waited for call in calls), share) * 1e3
