"""``disco run``: it does what the `Life` of a service asks, with its process, its probes and its registration."""

from __future__ import annotations

import asyncio
import os
import queue
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeAlias

from ..control.hub import Hub, find_address, hub
from ..model.errors import RegistryError, RegistryUnavailable
from ..system.notify import notify
from .asking import find
from .canary import Jury, Threshold
from .child import Child
from .doorway import Way
from .drain import Drained
from .health import Health
from .life import DONE, NO_REGISTRY, NOT_READY, Act, Event, Life, Phase
from .plan import Ending, Plan
from .prober import Prober
from .readiness import readiness
from .registration import Registration, register
from .replacing import Replacement, Takeover
from .reporting import Reporter
from .trial import Trial

__all__ = ["Runner"]

RETRY = 0.2
REGISTRY_TIMEOUT = 10.0
"""Seconds that the registry may take to answer before the command is started, and to take the first registration."""


@dataclass(frozen=True, slots=True)
class Exited:
    code: int


@dataclass(frozen=True, slots=True)
class Looked:
    """It is known by now whether the registry answers."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something of ours failed."""

    error: BaseException


News: TypeAlias = "tuple[Event, str] | Exited | Looked | Drained | Replacement | Trouble | str"
"""A string is the new state of the registration."""


class Runner:
    """*say* tells people, in a line, what happens."""

    def __init__(self, plan: Plan, *, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._hub: Hub = hub()
        self._address = find_address(plan.registry)
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._child = Child(plan.doorway, plan.host, stop_timeout=plan.terms.stop_timeout)
        self._health = Health(failures=plan.health_failures)
        self._registration: Registration | None = None
        self._takeover: Takeover | None = None
        self._jury: Jury | None = None
        self._has_hesitated = False
        self._reporter = Reporter(say)
        self._jobs: list[Future[Any]] = []
        self._worker = ThreadPoolExecutor(1, "disco-run")

    def stop(self) -> None:
        """A signal: end well. The second one shortens the drain, the third one ends everything. For a signal's handler."""
        self._news.put((Event.STOP, ""))

    def run(self) -> Ending:
        """Until it is over. In the main thread, so that signals are heard."""
        refusal = self._await_registry()
        if refusal is not None:
            return refusal
        plan = self._plan
        if self._child.is_taken():
            return Ending(code=NOT_READY, problem=f"port {plan.doorway.port} is in use by another process")
        try:
            self._child.start(
                {"DISCO_SERVICE": plan.service, "DISCO_INSTANCE": plan.instance_id},
                is_notified=self._is_notified,
                on_exit=lambda code: self._news.put(Exited(code)),
            )
        except OSError as error:
            where = f" at port {plan.doorway.port}" if plan.doorway.port is not None else ""
            return Ending(
                code=NOT_READY, problem=f"the command could not be started{where}: {error.strerror}"
            )
        try:
            life = Life(plan.terms, now=monotonic())
            self._watch()
            while life.phase is not Phase.OVER:
                for act in self._next(life):
                    self._do(act)
            return Ending(code=life.code, problem=life.problem)
        finally:
            for job in self._jobs:
                job.cancel()
            self._child.end()
            if self._registration is not None:
                self._registration.leave()
            self._worker.shutdown(wait=False, cancel_futures=True)

    @property
    def _is_notified(self) -> bool:
        return self._plan.doorway.way is Way.HANDED and self._plan.health_path is None

    # ---- before anything is started

    def _await_registry(self) -> Ending | None:
        """Why it can't begin: without a registry nobody would come, and what is there should not be touched."""
        looking = self._hub.background.submit(self._look())
        looking.add_done_callback(lambda done: self._news.put(Looked()))
        while (news := self._news.get()) != Looked():
            if news == (Event.STOP, ""):
                looking.cancel()
                return Ending(code=DONE)
        try:
            looking.result()
        except RegistryError as error:
            return Ending(
                code=NO_REGISTRY, problem=f"the registry could not be reached, nothing was started: {error}"
            )
        return None

    async def _look(self) -> None:
        registry, keys = self._hub.registry(self._address), self._address.keys
        deadline = monotonic() + REGISTRY_TIMEOUT
        while True:
            try:
                await find(registry, keys, self._plan.service, hostnames=True)
                return
            except RegistryUnavailable:
                if monotonic() >= deadline:
                    raise
                await asyncio.sleep(RETRY)

    # ---- what happens

    def _watch(self) -> None:
        plan = self._plan
        if self._is_notified:
            assert self._child.notices is not None
            ready = self._submit(self._child.notices.ready())
            ready.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else self._tell(Event.WELL)
            )
            self._health.record(None)
            return
        prober = Prober(
            readiness(
                self._child,
                scheme=plan.scheme,
                host=plan.host,
                health_path=plan.health_path,
                port_file=plan.doorway.port_file,
            ),
            self._health,
            interval=plan.health_interval,
            timeout=plan.health_timeout,
            on_change=lambda health: self._tell(
                Event.WELL if health.is_well else Event.UNWELL, "" if health.is_well else health.problem
            ),
        )
        self._submit(prober.run())

    def _tell(self, event: Event, reason: str = "") -> None:
        self._news.put((event, reason))

    def _submit(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run it on the background loop until it ends, or all does. A failure of ours ends all."""
        job = self._hub.background.submit(coroutine)
        self._jobs.append(job)
        job.add_done_callback(self._failed)
        return job

    def _failed(self, job: Future[Any]) -> None:
        if not job.cancelled() and (error := job.exception()) is not None:
            self._news.put(Trouble(error))

    def _next(self, life: Life) -> list[Act]:
        """What follows from what happens next."""
        wait = None if life.wake_at is None else max(0.0, life.wake_at - monotonic())
        try:
            news = self._news.get(timeout=wait)
        except queue.Empty:
            doubt = self._doubt(life)
            if doubt and life.phase is Phase.BAKING and not self._has_hesitated:
                self._has_hesitated = True
                self._say(f"not decided yet: {doubt}")
            return life.tick(monotonic(), doubt=doubt, interval=self._plan.health_interval)
        now = monotonic()
        match news:
            case Exited(code):
                self._say(f"the command ended with exit code {code}")
                if life.phase is Phase.WAITING and self._child.is_taken():
                    self._say(f"port {self._child.port}, which was free, is in use by another process")
                return life.exited(code, now)
            case Drained():
                self._reporter.drained(news)
                return life.drained(news.is_clean, now)
            case Replacement():
                self._reporter.replaced(news)
            case Trouble(error):
                raise error
            case (event, reason):
                return life.handle(event, now, reason=reason)
            case "draining" if life.phase in (Phase.BAKING, Phase.SERVING):
                return life.handle(Event.RETIRE, now)
            case str(state):
                self._reporter.state(state)
        return []

    def _doubt(self, life: Life) -> str:
        """Why it can't be decided yet, or what is wrong."""
        if self._health.is_doubted or life.phase is Phase.WAITING:
            return self._health.problem
        return self._jury.doubt if self._jury is not None and life.phase is Phase.BAKING else ""

    # ---- what is to be done

    def _do(self, act: Act) -> None:
        """Nothing here waits: what takes time is the worker's, in its order."""
        registration = self._registration
        match act:
            case Act.REGISTER:
                self._work(self._register)
            case Act.SAY_READY | Act.SAY_UNREADY if registration is not None:
                is_ready = act is Act.SAY_READY
                self._say("ready again" if is_ready else f"unready: {self._health.problem}")
                self._work(lambda: registration.set_ready(is_ready))
            case Act.PROMOTE if registration is not None:
                self._say(f"it has stood its trial: weight {self._plan.full_weight:g}")
                self._work(lambda: registration.set_weight(self._plan.full_weight))
            case Act.REPLACE if self._takeover is not None:
                self._hub.background.post(self._takeover.begin)
            case Act.DRAIN if registration is not None:
                asked = registration.retirement
                self._say(f"asked to retire: {asked}; draining" if asked is not None else "draining")
                notify("STOPPING=1", os.environ)
                self._work(lambda: self._news.put(registration.drain()))
            case Act.HURRY if registration is not None:
                self._say("waiting no longer for the drain")
                registration.hurry()
            case Act.TERMINATE:
                self._say("stopping the command")
                self._child.terminate()
            case Act.KILL:
                self._say("killing the command")
                self._child.kill()
            case Act.LEAVE:
                if registration is not None:
                    registration.hurry()
                self._work(self._leave)

    def _work(self, job: Callable[[], object]) -> None:
        self._worker.submit(job).add_done_callback(self._failed)

    def _register(self) -> None:
        plan = self._plan
        port = self._child.port
        assert port is not None
        try:
            self._registration = registration = register(
                plan.service,
                port,
                host=plan.host,
                scheme=plan.scheme,
                pid=self._child.pid,
                instance_id=plan.instance_id,
                registry=plan.registry,
                ttl=plan.ttl,
                quiet=plan.quiet,
                drain_timeout=plan.drain_timeout,
                timeout=REGISTRY_TIMEOUT,
                on_state=self._news.put,
                on_retire=lambda: self._tell(Event.RETIRE),
                observed=plan.threshold is not None,
                **plan.record,
            )
        except RegistryError as error:
            self._tell(Event.REFUSED, f"it could not be registered: {error}")
            return
        instance = registration.instance
        self._say(f"registered {instance.service} {instance.id} at {instance.address} (pid {instance.pid})")
        notify("READY=1", os.environ)
        if plan.terms.replace:
            self._prepare_takeover(registration)
        if plan.threshold is not None:
            self._begin_trial(plan.threshold)
        self._tell(Event.REGISTERED)

    def _leave(self) -> None:
        if self._registration is not None:
            self._registration.leave()
        self._child.end()
        self._tell(Event.LEFT)

    def _begin_trial(self, threshold: Threshold) -> None:
        shared, plan = self._hub, self._plan
        self._jury = Jury(plan.instance_id, threshold)
        trial = Trial(
            self._jury,
            shared.registry(self._address),
            self._address.keys.clients(plan.service),
            on_objection=lambda reason: self._tell(Event.OBJECTION, reason),
            settings=shared.settings,
            clock=monotonic,
            rng=shared.rng,
        )
        self._submit(trial.run())

    def _prepare_takeover(self, registration: Registration) -> None:
        plan, address = self._plan, self._address
        self._takeover = takeover = Takeover(
            lambda: registration.instance,
            self._hub.registry(address),
            address.keys,
            hostnames=address.hostnames,
            timeout=plan.drain_timeout + plan.terms.stop_timeout + plan.ttl,
            clock=monotonic,
        )

        async def run() -> None:
            self._news.put(await takeover.run())
            await takeover.stand(settings=self._hub.settings, rng=self._hub.rng)

        self._submit(run())
