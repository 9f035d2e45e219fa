"""The story of the demo: five acts, and what was seen in them. It plays on a `Stage`, and tells a `Teller`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from ..model.policy import RetryPolicy
from ..system.process import end
from .demo_callers import THREADS, Callers
from .demo_findings import (
    GAP,
    LEAST_SHARE,
    LEAVE_SLACK,
    Act,
    Call,
    Findings,
    Moved,
    find_moved,
    least_share,
)
from .demo_service import SERVICE
from .demo_stage import DemoFailed, Roster, Service, Stage

__all__ = ["Plan", "Story", "Teller"]

ELECTION_TIMEOUT = 10.0
SHOW_UP_TIMEOUT = 10.0
SETTLING = 8.0
"""Seconds beyond its time that the first act may take, until each instance has had its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how hard: times in seconds, ``rate`` in requests a second for each kind of caller.

    ``balancer`` and ``retry`` are the callers', as they are by default.
    """

    ttl: float = 3.0
    rate: float = 80.0
    well: float = 3.0
    after_death: float = 0.5
    after_election: float = 2.0
    after_join: float = 3.0
    without_etcd: float = 4.0
    balancer: str = "peak_ewma"
    retry: RetryPolicy = RetryPolicy()


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


@dataclass(frozen=True, slots=True)
class _Death:
    number: int
    killed_at: float
    dead_at: float
    left_at: float | None


class Story:
    """Plays the five acts."""

    def __init__(self, stage: Stage, teller: Teller, plan: Plan) -> None:
        self._stage = stage
        self._teller = teller
        self._plan = plan
        self._acts: list[Act] = []

    def play(self) -> Findings:
        """All of it. Raises `Interrupted`, `DemoFailed`, and what the development cluster raises."""
        stage, teller, plan = self._stage, self._teller, self._plan
        registry = stage.start_etcd()
        teller.introduce("etcd", f"{stage.cluster.nodes} members of {stage.cluster.binary}")
        launched = [stage.launch_service(registry, plan.ttl) for _ in range(3)]
        first = [wait() for wait in launched]
        numbers = [service.number for service in first]
        roster = stage.start_roster(registry)
        if not stage.wait_for(lambda: roster.numbers >= set(numbers), SHOW_UP_TIMEOUT):
            raise DemoFailed(f"the registry does not show all of {numbers}: {sorted(roster.numbers)}")
        teller.introduce("services", f"3 instances of {SERVICE!r}, each a process: {_names(numbers)}")
        callers = stage.start_callers(
            Callers(SERVICE, registry=registry, rate=plan.rate, balancer=plan.balancer, retry=plan.retry)
        )
        teller.introduce(
            "callers",
            f"{THREADS} threads and an event loop, {plan.rate:g} requests/s each; {plan.balancer}",
        )
        self._roster, self._callers = roster, callers
        if not stage.wait_for(
            lambda: {call.caller for call in callers.calls} == {"sync", "async"}, SHOW_UP_TIMEOUT
        ):
            raise DemoFailed(f"the callers got no answer: {self._why()}")

        self._well(numbers)
        death = self._kill_instance(first[1])
        old_leader, new_leader, elected_after = self._kill_leader()
        newcomer = self._join(registry)
        gone_at, ages = self._stop_etcd()
        callers.stop()
        return Findings(
            etcd=str(stage.cluster.binary),
            calls=tuple(callers.calls),
            acts=tuple(self._acts),
            ttl=plan.ttl,
            first=tuple(numbers),
            killed=death.number,
            killed_at=death.killed_at,
            dead_at=death.dead_at,
            left_at=death.left_at,
            old_leader=old_leader,
            new_leader=new_leader,
            elected_after=elected_after,
            newcomer=newcomer.number,
            joined_at=newcomer.registered_at,
            gone_at=gone_at,
            ages=tuple(ages),
        )

    # ---- the acts

    def _well(self, numbers: Collection[int]) -> None:
        self._begin("All is well")
        began = monotonic()
        self._stage.pause(self._plan.well)
        # One peak of latency, as a busy machine gives its processes, keeps an instance in the background for some seconds.
        self._stage.wait_for(lambda: self._least_share(began, numbers) >= LEAST_SHARE, SETTLING)
        self._end()

    def _least_share(self, since: float, numbers: Collection[int]) -> float:
        return least_share([call for call in self._callers.calls if call.began >= since], numbers)

    def _kill_instance(self, victim: Service) -> _Death:
        stage, roster, plan = self._stage, self._roster, self._plan
        self._begin(f"An instance is killed: {victim.number}")
        killed_at = monotonic()
        end(victim.process, grace=0.0)
        dead_at = monotonic()
        self._teller.say(
            f"SIGKILL to {victim.number} (process {victim.process.pid}); the registry doesn't know yet",
            killed_at,
        )
        stage.pause(1.1 * GAP)
        moved = find_moved(self._callers.calls, killed_at)
        self._teller.say(_moved(moved), killed_at + moved.after)
        stage.wait_for(lambda: roster.left_at(victim.number), plan.ttl + LEAVE_SLACK)
        left_at = roster.left_at(victim.number)
        if left_at is None:
            self._teller.say(f"{victim.number} is still in the registry")
        else:
            self._teller.say(
                f"{victim.number} left the registry: nobody renewed its lease of {plan.ttl:g} s", left_at
            )
        stage.pause(plan.after_death)
        self._end()
        return _Death(victim.number, killed_at, dead_at, left_at)

    def _kill_leader(self) -> tuple[str, str, float]:
        stage, cluster = self._stage, self._stage.cluster
        old = cluster.leader(timeout=ELECTION_TIMEOUT)
        self._begin(f"A member of etcd is killed: {old.name}, the leader")
        killed_at = monotonic()
        old.kill()
        self._teller.say(f"SIGKILL to {old.name} (process {old.pid})", killed_at)
        new = cluster.leader(timeout=ELECTION_TIMEOUT)
        elected_after = monotonic() - killed_at
        self._teller.say(f"{new.name} leads")
        stage.pause(self._plan.after_election)
        self._end()
        return old.name, new.name, elected_after

    def _join(self, registry: str) -> Service:
        stage, calls = self._stage, self._callers.calls
        self._begin("A new instance joins")
        wait = stage.launch_service(registry, self._plan.ttl)
        self._teller.say("a fourth process is started")
        newcomer = wait()
        self._teller.say(f"{newcomer.number} is registered", newcomer.registered_at)

        def first() -> float | None:
            return next((call.ended for call in calls[-400:] if call.number == newcomer.number), None)

        stage.wait_for(first, self._plan.after_join)
        at = first()
        if at is None:
            self._teller.say(f"{newcomer.number} got no request")
        else:
            took = max(0.0, at - newcomer.registered_at) * 1000
            self._teller.say(
                f"{newcomer.number} has answered its first request, {took:.0f} ms after that", at
            )
        stage.pause(self._plan.after_join)
        self._end()
        return newcomer

    def _stop_etcd(self) -> tuple[float, list[tuple[float, float]]]:
        stage, roster = self._stage, self._roster
        self._begin("All of etcd is stopped")
        for member in stage.cluster.members:
            member.kill()
        gone_at = monotonic()
        self._teller.say("SIGKILL to the last two members: there is no registry any more", gone_at)
        ages = [(monotonic(), roster.age())]
        until = gone_at + self._plan.without_etcd
        while (left := until - monotonic()) > 0:
            stage.pause(min(1.0, left))
            ages.append((monotonic(), roster.age()))
            self._teller.say(f"requests go on; what the callers know is {ages[-1][1]:.1f} s old")
        self._end()
        return gone_at, ages

    # ---- in every act

    def _begin(self, title: str) -> None:
        self._stage.check()
        began = self._acts[-1].ended if self._acts else monotonic()  # no request falls between two acts
        self._acts.append(Act(len(self._acts) + 1, title, began, float("inf")))
        self._teller.begin(len(self._acts), title, self._callers.calls, self._roster)

    def _why(self) -> str:
        errors = [call.error for call in self._callers.calls if call.error]
        return errors[-1] if errors else str(self._callers.failure or "none of them is over")

    def _end(self) -> None:
        if self._callers.failure is not None:
            raise DemoFailed(f"a caller broke down: {self._callers.failure!r}") from self._callers.failure
        act = self._acts[-1]
        self._acts[-1] = Act(act.number, act.title, act.began, monotonic())
        self._teller.end(self._acts[-1])


def _moved(moved: Moved) -> str:
    if not moved.retried:
        return "traffic had moved: no request reached for it any more"
    requests = f"{moved.retried} requests" if moved.retried > 1 else "1 request"
    return f"traffic had moved; {requests} met the dead one, others answered"


def _names(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}"
