"""What all acts of the demo share: the stage, the callers, who is told, and where one act ends and the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from ..model.policy import RetryPolicy
from .demo_callers import Callers
from .demo_measures import Act, Call
from .demo_roster import Roster
from .demo_stage import DemoFailed, Stage

__all__ = ["Plan", "Scene", "Teller"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how hard: times in seconds, ``rate`` in requests a second for each kind of caller.

    ``balancer`` and ``retry`` are the callers', as they are by default. ``drains``: whether version 1 waits for its
    callers when it is asked to retire.
    """

    ttl: float = 3.0
    rate: float = 80.0
    well: float = 3.0
    after_death: float = 0.5
    after_election: float = 2.0
    after_join: float = 3.0
    after_broken: float = 0.3
    bake: float = 1.0
    after_deploy: float = 1.5
    without_etcd: float = 4.0
    balancer: str = "peak_ewma"
    retry: RetryPolicy = RetryPolicy()
    drains: bool = True


class Teller(Protocol):
    """Whom the story is told to, as it happens."""

    def introduce(self, name: str, text: str) -> None:
        """Something is on the stage."""

    def begin(self, number: int, title: str, calls: Sequence[Call], roster: Roster) -> None:
        """An act begins. *calls* and *roster* grow while it lasts."""

    def say(self, text: str, at: float | None = None) -> None:
        """Something happened, now or *at* a time of the monotonic clock."""

    def end(self, act: Act) -> None:
        """The act is over."""


class Scene:
    """*registry* is the URL of the one that the services are in."""

    def __init__(
        self, stage: Stage, teller: Teller, plan: Plan, *, registry: str, roster: Roster, callers: Callers
    ) -> None:
        self.stage = stage
        self.teller = teller
        self.plan = plan
        self.registry = registry
        self.roster = roster
        self.callers = callers
        self.acts: list[Act] = []

    def begin(self, title: str) -> None:
        self.stage.check()
        began = self.acts[-1].ended if self.acts else monotonic()  # no request falls between two acts
        self.acts.append(Act(len(self.acts) + 1, title, began, float("inf")))
        self.teller.begin(len(self.acts), title, self.callers.calls, self.roster)

    def end(self) -> None:
        if self.callers.failure is not None:
            raise DemoFailed(f"a caller broke down: {self.callers.failure!r}") from self.callers.failure
        act = self.acts[-1]
        self.acts[-1] = Act(act.number, act.title, act.began, monotonic())
        self.teller.end(self.acts[-1])
