"""Registering a service, for people on an event loop: `aregister`, on asyncio and on trio."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self

import anyio.to_thread

from ..model.instance import Instance
from ..registry.asked import Retirement
from .drain import Drained
from .load import Load
from .registration import Registration, prepare, register

__all__ = ["AsyncRegistration", "aregister"]


class AsyncRegistration:
    """The async twin of `Registration`: ``async with aregister(...) as registration``, or ``await aregister(...)``.

    Cancelled while it begins, it leaves nothing behind.
    """

    def __init__(self, prepare: Callable[[], Registration]) -> None:
        self._prepare = prepare
        self._registration: Registration | None = None

    def __repr__(self) -> str:
        return (
            f"<Async{repr(self._registration)[1:]}"
            if self._registration
            else "<AsyncRegistration, not begun>"
        )

    @property
    def instance(self) -> Instance:
        """As `Registration.instance`. Raises `RuntimeError` before it has begun."""
        return self._begun().instance

    @property
    def state(self) -> str:
        """As `Registration.state`."""
        return self._begun().state

    async def set_ready(self, is_ready: bool) -> None:
        """As `Registration.set_ready`."""
        await anyio.to_thread.run_sync(self._begun().set_ready, is_ready, abandon_on_cancel=True)

    @property
    def in_flight(self) -> int:
        """As `Registration.in_flight`."""
        return self._begun().in_flight

    @property
    def retirement(self) -> Retirement | None:
        """As `Registration.retirement`."""
        return self._begun().retirement

    def attach(self, load: Load) -> None:
        """As `Registration.attach`."""
        self._begun().attach(load)

    async def drain(self) -> Drained:
        """As `Registration.drain`."""
        return await anyio.to_thread.run_sync(self._begun().drain, abandon_on_cancel=True)

    def hurry(self) -> None:
        """As `Registration.hurry`."""
        self._begun().hurry()

    async def aclose(self) -> None:
        """As `Registration.close`. Does nothing before it has begun."""
        if self._registration is not None:
            # Before anything is awaited: a cancellation of asyncio's own reaches into anyio's shield.
            self._registration._begin_closing()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._registration.close)

    close = aclose

    def __await__(self) -> Generator[Any, Any, AsyncRegistration]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        if self._registration is None:
            # Threads that nobody waits for any more end by themselves: the first has begun nothing, the second is told to.
            registration = await anyio.to_thread.run_sync(self._prepare, abandon_on_cancel=True)
            try:
                await anyio.to_thread.run_sync(registration._begin, abandon_on_cancel=True)
            except BaseException:
                registration._abandon()
                raise
            self._registration = registration
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _begun(self) -> Registration:
        if self._registration is None:
            raise RuntimeError(
                "not registered yet: use 'async with aregister(...)' or 'await aregister(...)'"
            )
        return self._registration


def aregister(service: str, port: int, **options: Any) -> AsyncRegistration:
    """`register` for asyncio and trio: ``async with aregister(...)``, or ``await aregister(...)``. The same arguments."""
    given = inspect.signature(register).bind(service, port, **options)
    given.apply_defaults()
    return AsyncRegistration(lambda: prepare(**given.arguments))
