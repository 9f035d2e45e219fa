"""What a pool holds and a shell uses: a carrier, which takes one request after the other to one instance.

Two engines have them: ``native`` is our own wire (`native_sync`, `native_async`), ``httpcore`` the one that httpx comes with
(`httpcore_carriers`). A third kind lends httpx transports of the user's making (`lent_carriers`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import httpx

from .http1.head import Field

__all__ = ["Answer", "AsyncCarrier", "Carrier", "Raises", "Terms"]

Raises: TypeAlias = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all requests of a client to a service.

    ``connect_timeout``: seconds, a bound to httpx's own. ``server_name``: whose certificate is wanted. ``streamed``: statuses
    whose bodies are not to be waited for; ``None``: no body is.
    """

    connect_timeout: float
    server_name: str
    streamed: Container[int] | None = None


@dataclass(slots=True)
class Answer:
    """A response as it came. ``content`` is all of its body, if that is here: then the carrier is free again; else ``stream``
    has it. ``head_at``: when the head was here, by the monotonic clock; 0 if nobody looked.
    """

    status: int
    headers: httpx.Headers | Sequence[Field]
    extensions: dict[str, Any]
    stream: Any = None
    content: bytes | None = None
    head_at: float = 0.0


class Carrier(Protocol):
    """``deadline``: a moment of the monotonic clock, of the request that is under way. ``has_answer``: whether a byte of its
    response has come. ``raises``: what it raises when its connection fails, and nobody else.
    """

    raises: ClassVar[Raises]
    deadline: float | None

    @property
    def is_used(self) -> bool:
        """Whether it has carried a request before."""

    @property
    def has_answer(self) -> bool: ...

    @property
    def is_expired(self) -> bool:
        """Whether the deadline has passed."""

    def hurry(self, deadline: float) -> None:
        """An earlier deadline."""

    def is_idle(self) -> bool:
        """Whether it may carry another request, as far as it knows without a look."""

    def is_overdue(self, now: float) -> bool:
        """Whether it was idle for longer than it may be."""

    def has_ended(self) -> bool:
        """Whether it is overdue, or the instance has closed it while it was idle."""

    def carry(
        self,
        request: httpx.Request,
        fields: Sequence[Field],
        terms: Terms,
        on_head: Callable[[float], None],
    ) -> Answer:
        """Send *request* with *fields* as its header. Raises a `Failure`, or httpcore's exceptions.

        *on_head* is told when a response's head has come whose body is waited for.
        """

    def break_off(self) -> None:
        """From another thread: have whoever reads or writes here fail at once."""

    def close(self) -> None: ...


class AsyncCarrier(Protocol):
    """The async twin of `Carrier`."""

    raises: ClassVar[Raises]
    deadline: float | None

    @property
    def is_used(self) -> bool: ...

    @property
    def has_answer(self) -> bool: ...

    @property
    def is_expired(self) -> bool: ...

    def hurry(self, deadline: float) -> None: ...

    def is_idle(self) -> bool: ...

    def is_overdue(self, now: float) -> bool: ...

    def has_ended(self) -> bool: ...

    async def carry(
        self,
        request: httpx.Request,
        fields: Sequence[Field],
        terms: Terms,
        on_head: Callable[[float], None],
    ) -> Answer: ...

    async def aclose(self) -> None: ...
