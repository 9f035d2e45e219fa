"""The words between the flow of a call and the shell that drives it: what to do, and how a call ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

from ..balancing.endpoint import Endpoint, Ticket
from ..balancing.picker import HashKey
from ..balancing.view import View
from ..model.events import CallInfo

if TYPE_CHECKING:
    from .hedging import Race

__all__ = ["READ", "Call", "End", "Read", "Send", "Sleep", "Step"]


@dataclass(frozen=True, slots=True)
class Call:
    """What the decisions need to know of a request.

    ``exclude``: ids that it must not go to. ``retries``: how many attempts may follow the first, in place of the policy's.
    ``deadline``: a moment of the flow's clock. ``key``: its ``hash_key``. ``version``: the only one that it may go to.
    ``info``: for hooks; ``None`` if there are none. ``is_whole``: the caller gets the body with the response, not as a stream.
    """

    is_idempotent: bool
    is_replayable: bool
    exclude: frozenset[str] = frozenset()
    retries: int | None = None
    deadline: float | None = None
    key: HashKey | None = None
    version: str | None = None
    info: CallInfo | None = None
    is_whole: bool = False


@dataclass(slots=True)
class Send:
    """Make an attempt at this ticket's endpoint. ``number`` is 1 for the first; ``view`` is what it was picked from, ``began``
    when.

    ``is_fresh``: on a new connection. ``headers``: what hooks want to have sent with it. ``race``: whom to ask when it is late.
    """

    ticket: Ticket
    number: int
    view: View
    began: float
    is_fresh: bool = False
    headers: dict[str, str] | None = None
    race: Race | None = None

    @property
    def endpoint(self) -> Endpoint:
        return self.ticket.endpoint


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Read:
    """Read the body of the response that came, to its end, and say what the attempt means then: ``None`` if all is there."""


READ = Read()
"""The one there is."""


class End(Enum):
    DELIVER = auto()
    """The last attempt's response, or its error, is the caller's."""
    NO_INSTANCES = auto()
    """There was nothing to send to."""
    THROTTLED = auto()
    """Refused here; nothing was sent."""
    EXPIRED = auto()
    """The deadline had passed before anything was sent."""


Step: TypeAlias = Send | Sleep | Read
