"""Events: what was decided and why, for whoever wants to know. A hook gets them as they happen.

Those of a call (`CallStarted`, `AttemptStarted`, `AttemptEnded`, `CallEnded`) come in the thread that makes the call, in that
order, and ``call`` is the same object in all of them. Those of the registry (`SnapshotChanged`, `PhaseChanged`,
`InstancesHeld`) come on the background thread; where another client of the process knows the service already, a new one's hooks
are told first where things stand. All times are seconds.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from .instance import Instance
from .outcome import Outcome

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "BudgetExhausted",
    "CallEnded",
    "CallInfo",
    "CallStarted",
    "EjectionSkipped",
    "Event",
    "Hook",
    "InstanceEjected",
    "InstanceUnejected",
    "InstancesHeld",
    "PanicChanged",
    "PhaseChanged",
    "RequestThrottled",
    "SnapshotChanged",
]


@dataclass(frozen=True, slots=True, eq=False)
class CallInfo:
    """The request that a call is about. Two are equal only if they are the same object."""

    service: str
    method: str
    url: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    call: CallInfo


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """An attempt is about to be sent to ``instance``. What a hook puts into ``headers`` is sent with it (``traceparent``,
    say).
    """

    call: CallInfo
    number: int
    instance: Instance
    is_hedge: bool = False
    headers: MutableMapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """What came of it, and why another one follows (``retry``, such as ``connect`` or ``unavailable``), or none (``None``)."""

    call: CallInfo
    number: int
    instance: Instance
    outcome: Outcome
    retry: str | None = None


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The caller has its response (``status``; the body may still go on) or its exception (``error``, its class's name)."""

    call: CallInfo
    attempts: int
    seconds: float
    status: int | None = None
    error: str | None = None
    instance: Instance | None = None


@dataclass(frozen=True, slots=True)
class InstanceEjected:
    """It is left alone for ``seconds``. ``reason``: connect, consecutive, success_rate, probe or wrong_instance."""

    service: str
    instance: Instance
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EjectionSkipped:
    """It was due for ejection for ``reason``, and was not ejected ``because``: max_ejected, alone, or off."""

    service: str
    instance: Instance
    reason: str
    because: str


@dataclass(frozen=True, slots=True)
class InstanceUnejected:
    """A probe went well: it is called again as any other."""

    service: str
    instance: Instance


@dataclass(frozen=True, slots=True)
class PanicChanged:
    """So many endpoints look bad that the detector is distrusted, and no more of them are left alone. Or that is over."""

    service: str
    is_panic: bool
    ejected: int
    total: int


@dataclass(frozen=True, slots=True)
class BudgetExhausted:
    """An attempt that might have been tried again for ``reason`` was not: too many have been, of late."""

    service: str
    reason: str


@dataclass(frozen=True, slots=True)
class RequestThrottled:
    """A request was refused here, without being sent: ``policy`` is throttle or recovery, ``probability`` how likely that
    was.
    """

    service: str
    policy: str
    probability: float


@dataclass(frozen=True, slots=True)
class SnapshotChanged:
    """The set of instances is another one now; the ids say which. ``is_suspect``: read without a quorum, or from disk."""

    service: str
    revision: int
    total: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    is_suspect: bool


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """How much the knowledge is worth: empty, syncing, live or suspect; ``age`` as `RegistryHandle.age` gives it."""

    service: str
    phase: str
    age: float | None


@dataclass(frozen=True, slots=True)
class InstancesHeld:
    """Many instances vanished at once without draining: they are kept as a last resort for ``seconds``."""

    service: str
    ids: tuple[str, ...]
    seconds: float


Event: TypeAlias = (
    CallStarted
    | AttemptStarted
    | AttemptEnded
    | CallEnded
    | InstanceEjected
    | EjectionSkipped
    | InstanceUnejected
    | PanicChanged
    | BudgetExhausted
    | RequestThrottled
    | SnapshotChanged
    | PhaseChanged
    | InstancesHeld
)


@runtime_checkable
class Hook(Protocol):
    """Gets every event of the clients that it was given to (``hooks=[...]``). Called in the middle of things: be quick.

    What it raises is logged, and stops nobody.
    """

    def on_event(self, event: Event) -> None: ...
