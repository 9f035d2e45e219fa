"""The story of the demo: seven acts, and what was seen in them. It plays on a `Stage`, and tells a `Teller`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic

from ..system.process import end
from .demo_actors import Service
from .demo_callers import THREADS, Callers
from .demo_deploy import play_deploy
from .demo_deployed import enumerate_words
from .demo_findings import LEAST_SHARE, LEAVE_SLACK, Findings
from .demo_measures import GAP, Moved, find_moved, least_share
from .demo_scene import Plan, Scene, Teller
from .demo_service import SERVICE
from .demo_stage import DemoFailed, Stage

__all__ = ["HOSTS", "Story"]

HOSTS = ("web-1", "web-2", "web-3")
"""What the instances say where they run. All of it is this machine."""
ELECTION_TIMEOUT = 10.0
SHOW_UP_TIMEOUT = 10.0
SETTLING = 8.0
"""Seconds beyond its time that the first act may take, until each instance has had its share."""


@dataclass(frozen=True, slots=True)
class _Death:
    number: int
    killed_at: float
    dead_at: float
    left_at: float | None


class Story:
    """Plays the acts."""

    def __init__(self, stage: Stage, teller: Teller, plan: Plan) -> None:
        self._stage = stage
        self._teller = teller
        self._plan = plan

    def play(self) -> Findings:
        """All of it. Raises `Interrupted`, `DemoFailed`, and what the development cluster raises."""
        stage, teller, plan = self._stage, self._teller, self._plan
        registry = stage.start_etcd()
        teller.introduce("etcd", f"{stage.cluster.nodes} members of {stage.cluster.binary}")
        launched = [self._launch(registry, hostname) for hostname in HOSTS]
        first = [wait() for wait in launched]
        numbers = [service.number for service in first]
        roster = stage.start_roster(registry)
        if not stage.wait_for(lambda: roster.numbers >= set(numbers), SHOW_UP_TIMEOUT):
            raise DemoFailed(f"the registry does not show all of {numbers}: {sorted(roster.numbers)}")
        teller.introduce(
            "services",
            f"version 1 of {SERVICE!r}, a process on each of {len(HOSTS)} simulated hosts: {enumerate_words(numbers)}",
        )
        callers = stage.start_callers(
            Callers(SERVICE, registry=registry, rate=plan.rate, balancer=plan.balancer, retry=plan.retry)
        )
        teller.introduce(
            "callers",
            f"{THREADS} threads and an event loop of one process, {plan.rate:g} requests/s each; {plan.balancer}",
        )
        self._scene = Scene(stage, teller, plan, registry=registry, roster=roster, callers=callers)
        if not stage.wait_for(
            lambda: {call.caller for call in callers.calls} == {"sync", "async"}, SHOW_UP_TIMEOUT
        ):
            raise DemoFailed(f"the callers got no answer: {self._why()}")

        self._well(numbers)
        death = self._kill_instance(first[1])
        old_leader, new_leader, elected_after = self._kill_leader()
        newcomer = self._join(first[1].hostname)
        deploy = play_deploy(self._scene, [first[0], newcomer, first[2]])
        gone_at, ages = self._stop_etcd()
        callers.stop()
        return Findings(
            etcd=str(stage.cluster.binary),
            calls=tuple(callers.calls),
            acts=tuple(self._scene.acts),
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
            deploy=deploy,
            gone_at=gone_at,
            ages=tuple(ages),
        )

    # ---- the acts

    def _well(self, numbers: Collection[int]) -> None:
        self._scene.begin("All is well")
        began = monotonic()
        self._stage.pause(self._plan.well)
        # One peak of latency, as a busy machine gives its processes, keeps an instance in the background for some seconds.
        self._stage.wait_for(lambda: self._least_share(began, numbers) >= LEAST_SHARE, SETTLING)
        self._scene.end()

    def _least_share(self, since: float, numbers: Collection[int]) -> float:
        return least_share([call for call in self._scene.callers.calls if call.began >= since], numbers)

    def _kill_instance(self, victim: Service) -> _Death:
        stage, roster, plan = self._stage, self._scene.roster, self._plan
        self._scene.begin(f"An instance is killed: {victim.number}")
        killed_at = monotonic()
        end(victim.process, grace=0.0)
        dead_at = monotonic()
        self._teller.say(
            f"SIGKILL to {victim.number} (process {victim.process.pid}); the registry doesn't know yet",
            killed_at,
        )
        stage.pause(1.1 * GAP)
        moved = find_moved(self._scene.callers.calls, killed_at)
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
        self._scene.end()
        return _Death(victim.number, killed_at, dead_at, left_at)

    def _kill_leader(self) -> tuple[str, str, float]:
        stage, cluster = self._stage, self._stage.cluster
        old = cluster.leader(timeout=ELECTION_TIMEOUT)
        self._scene.begin(f"A member of etcd is killed: {old.name}, the leader")
        killed_at = monotonic()
        old.kill()
        self._teller.say(f"SIGKILL to {old.name} (process {old.pid})", killed_at)
        new = cluster.leader(timeout=ELECTION_TIMEOUT)
        elected_after = monotonic() - killed_at
        self._teller.say(f"{new.name} leads")
        stage.pause(self._plan.after_election)
        self._scene.end()
        return old.name, new.name, elected_after

    def _join(self, hostname: str) -> Service:
        stage, calls = self._stage, self._scene.callers.calls
        self._scene.begin("A new instance joins")
        wait = self._launch(self._scene.registry, hostname)
        self._teller.say(f"a fourth process is started, on {hostname} again")
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
        self._scene.end()
        return newcomer

    def _stop_etcd(self) -> tuple[float, list[tuple[float, float]]]:
        stage, roster = self._stage, self._scene.roster
        self._scene.begin("All of etcd is stopped")
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
        self._scene.end()
        return gone_at, ages

    def _launch(self, registry: str, hostname: str) -> Callable[[], Service]:
        return self._stage.launch_service(registry, hostname, self._plan.ttl, is_hasty=not self._plan.drains)

    def _why(self) -> str:
        callers = self._scene.callers
        errors = [call.error for call in callers.calls if call.error]
        return errors[-1] if errors else str(callers.failure or "none of them is over")


def _moved(moved: Moved) -> str:
    if not moved.retried:
        return "traffic had moved: no request reached for it any more"
    requests = f"{moved.retried} requests" if moved.retried > 1 else "1 request"
    return f"traffic had moved; {requests} met the dead one, others answered"
