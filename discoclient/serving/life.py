"""The life of a service under ``disco run``, from its start to its exit code. Decisions only; the shell is `serving.runner`.

::

    waiting -> registering -> baking -> serving -> draining -> stopping -> leaving -> done
                          \\___________/

It is registered when it is ready and never before; it stops only when it has drained; and its lease is given back only when
its process is gone. A version that fails before it took over changes nothing for the others: that is the whole roll-back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

__all__ = ["DONE", "KILLED", "NOT_READY", "NO_REGISTRY", "Act", "Event", "Life", "Phase", "Terms"]

DONE, NOT_READY, NO_REGISTRY, KILLED = 0, 3, 4, 137
"""Exit codes: done; did not become ready, or failed before it took over; no registry; had to be killed."""


class Phase(StrEnum):
    WAITING = "waiting"
    """Until it is ready."""
    REGISTERING = "registering"
    BAKING = "baking"
    """Registered, and watched for a while before the older ones are asked to go, and it gets its full share."""
    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    """It was told to end."""
    LEAVING = "leaving"
    """Its process is gone; now it leaves the registry."""
    OVER = "over"


class Act(StrEnum):
    """What is to be done."""

    REGISTER = "register"
    SAY_READY = "say-ready"
    SAY_UNREADY = "say-unready"
    PROMOTE = "promote"
    """It has stood its trial: it gets its full share."""
    REPLACE = "replace"
    """Ask the older instances to retire, and wait for them."""
    DRAIN = "drain"
    HURRY = "hurry"
    """Wait no longer for the drain."""
    TERMINATE = "terminate"
    KILL = "kill"
    LEAVE = "leave"


class Event(StrEnum):
    """What happened, where that is all there is to say. An exit is told by `Life.exited`, a drain's end by `Life.drained`."""

    WELL = "well"
    UNWELL = "unwell"
    REGISTERED = "registered"
    OBJECTION = "objection"
    """Its callers speak against it."""
    REFUSED = "refused"
    """It could not be registered."""
    LEFT = "left"
    STOP = "stop"
    """A signal. The second one shortens the drain, the third one ends everything."""
    RETIRE = "retire"
    """Somebody asked for it through the registry."""


Acts: TypeAlias = "list[Act]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Times in seconds, as ``disco run`` documents them. ``replace``: whether it takes over from older ones.

    ``trial``: how long its callers are listened to before it gets its full share; ``None``: it has it from the start.
    """

    ready_timeout: float = 60.0
    bake: float = 5.0
    stop_timeout: float = 5.0
    replace: bool = False
    trial: float | None = None

    @property
    def watch(self) -> float | None:
        """How long it is watched before it has taken over; ``None``: it need not."""
        if self.trial is None:
            return self.bake if self.replace else None
        return max(self.trial, self.bake if self.replace else 0.0)


class Life:
    """Began at *now*, with the process."""

    def __init__(self, terms: Terms, *, now: float) -> None:
        self._terms = terms
        self.phase = Phase.WAITING
        self.wake_at: float | None = now + terms.ready_timeout
        self.problem = ""
        """Why it ended with `NOT_READY` or `NO_REGISTRY`."""
        self._code: int | None = None  # decided before the process ended
        self._exit: int | None = None
        self._is_stopping = False  # asked to, before it could be done
        self._is_well = False
        self._is_clean = True
        self._is_killed = False
        self._signals = 0
        self._is_asked = False  # to end, in whatever way

    @property
    def code(self) -> int:
        """The exit code, once it is over."""
        if self._code is not None:
            return self._code
        if self._is_killed:
            return KILLED
        if self._is_asked and self._is_clean:
            return DONE
        return self._exit or DONE

    def handle(self, event: Event, now: float, *, reason: str = "") -> Acts:
        """*reason*: of what went wrong, where it did."""
        match event:
            case Event.STOP:
                self._signals += 1
                return self._stop(now) or self._insist()
            case Event.RETIRE:
                return self._stop(now)
            case Event.WELL:
                return self._well(now)
            case Event.UNWELL:
                return self._unwell(now, reason)
            case Event.REGISTERED:
                return self._registered(now)
            case Event.OBJECTION:
                return self._objection(reason)
            case Event.REFUSED:
                if self._exit is not None:
                    self._give_up(NOT_READY, f"it ended with exit code {self._exit} before it was registered")
                self._give_up(NO_REGISTRY, reason)
                return self._leave() if self._exit is not None else self._terminate(now)
            case Event.LEFT:
                self.phase, self.wake_at = Phase.OVER, None
        return []

    def exited(self, code: int, now: float) -> Acts:
        """The process ended, with an exit code as a shell has it: 128 and more for signals."""
        self._exit = code
        if self.phase is Phase.WAITING:
            self._give_up(NOT_READY, f"it ended with exit code {code} before it was ready")
        elif self.phase in (Phase.REGISTERING, Phase.BAKING) and self._terms.watch is not None:
            self._give_up(NOT_READY, f"it ended with exit code {code} before it took over")
        elif self.phase is Phase.DRAINING:
            self._is_clean = False  # whoever still had something there has lost it
        if self.phase is Phase.REGISTERING:
            return []  # first it has to be known what there is to take back
        return self._leave()

    def drained(self, is_clean: bool, now: float) -> Acts:
        if self.phase is not Phase.DRAINING:
            return []
        self._is_clean &= is_clean
        return self._terminate(now)

    def tick(self, now: float, *, doubt: str = "", interval: float = 1.0) -> Acts:
        """*doubt*: what the newest probe found wrong, though not enough of them did; *interval*: when the next one is known."""
        if self.wake_at is None or now < self.wake_at:
            return []
        self.wake_at = None
        match self.phase:
            case Phase.WAITING:
                self._give_up(NOT_READY, f"it was not ready within {self._terms.ready_timeout:g} s: {doubt}")
                return self._terminate(now)
            case Phase.BAKING if doubt:
                self.wake_at = now + interval
            case Phase.BAKING:
                self.phase = Phase.SERVING
                acts = [Act.PROMOTE] if self._terms.trial is not None else []
                return [*acts, Act.REPLACE] if self._terms.replace else acts
            case Phase.STOPPING:
                return self._kill()
        return []

    # ---- what happened

    def _well(self, now: float) -> Acts:
        self._is_well = True
        if self.phase is Phase.WAITING:
            self.phase, self.wake_at = Phase.REGISTERING, None
            return [Act.REGISTER]
        return [Act.SAY_READY] if self.phase is Phase.SERVING else []

    def _unwell(self, now: float, reason: str) -> Acts:
        self._is_well = False
        if self.phase is Phase.BAKING:
            self._give_up(NOT_READY, f"it turned unhealthy before it took over: {reason}")
            return [Act.SAY_UNREADY, *self._drain()]
        return [Act.SAY_UNREADY] if self.phase is Phase.SERVING else []

    def _objection(self, reason: str) -> Acts:
        if self.phase is not Phase.BAKING:
            return []
        self._give_up(NOT_READY, f"it failed its trial: {reason}")
        return self._drain()

    def _registered(self, now: float) -> Acts:
        if self._exit is not None:
            return self._leave()
        if self._is_killed:
            return self._terminate(now)
        if self._is_stopping:
            return [*self._drain(), *([Act.HURRY] if self._signals > 1 else [])]
        watch = self._terms.watch
        if watch is not None:
            self.phase, self.wake_at = Phase.BAKING, now + watch
            return [] if self._is_well else self._unwell(now, "right after it was ready")
        self.phase = Phase.SERVING
        return [] if self._is_well else [Act.SAY_UNREADY]

    def _stop(self, now: float) -> Acts:
        self._is_asked = True
        match self.phase:
            case Phase.WAITING:
                return self._terminate(now)
            case Phase.REGISTERING:
                self._is_stopping = True
            case Phase.BAKING | Phase.SERVING:
                return self._drain()
        return []

    def _insist(self) -> Acts:
        """A signal, and what the first one asked for is under way."""
        if self.phase is Phase.DRAINING and self._signals == 2:
            return [Act.HURRY]
        if self.phase in (Phase.REGISTERING, Phase.DRAINING, Phase.STOPPING) and self._signals > 2:
            # While it is being registered, first it has to be known what there is to take back.
            if self.phase is not Phase.REGISTERING:
                self.phase = Phase.STOPPING
            return self._kill() if self._exit is None else []
        return []

    # ---- what follows

    def _drain(self) -> Acts:
        self.phase, self.wake_at = Phase.DRAINING, None
        return [Act.DRAIN]

    def _terminate(self, now: float) -> Acts:
        self.phase = Phase.STOPPING
        if self._is_killed:
            return []
        self.wake_at = now + self._terms.stop_timeout
        return [Act.TERMINATE]

    def _kill(self) -> Acts:
        self._is_killed, self.wake_at = True, None
        return [Act.KILL]

    def _leave(self) -> Acts:
        self.wake_at = None
        self.phase = Phase.LEAVING
        return [Act.LEAVE]

    def _give_up(self, code: int, problem: str) -> None:
        if self._code is None and not self._is_asked:
            self._code, self.problem = code, problem
