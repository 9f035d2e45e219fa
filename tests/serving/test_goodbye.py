"""How a registration ends: whoever ends it, however often, in the middle of what, and with whatever registry."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest
import trio

from discoclient import (
    AsyncRegistration,
    Drained,
    Instance,
    Registration,
    RegistryUnavailable,
    aregister,
    connect,
    register,
)
from discoclient.control.hub import hub
from discoclient.serving import registrar
from discoclient.testing import TestRegistry, memory_registry
from tests.support.eventually import eventually, eventually_async

MINUTE = 60.0


@pytest.fixture(autouse=True)
def registry() -> Iterator[TestRegistry]:
    with memory_registry() as found:
        yield found


def stored() -> list[Instance]:
    with connect() as handle:
        return handle.instances("web")


def states() -> list[str]:
    return [str(instance.state) for instance in stored()]


class Gate:
    """Stands before one of the registry's calls: each waits until it is opened, or fails."""

    def __init__(self, registry: TestRegistry, name: str) -> None:
        backing: Any = hub().registry(registry._address)
        self._call = getattr(backing, name)
        self._opened = threading.Event()
        self.reached = threading.Event()
        self.failures = 0
        """How many of the next calls fail at once instead."""
        self.calls = 0
        setattr(backing, name, self._pass)

    def open(self) -> None:
        self._opened.set()

    async def _pass(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        self.reached.set()
        if self.failures:
            self.failures -= 1
            raise RegistryUnavailable("no leader")
        while not self._opened.is_set():
            await asyncio.sleep(0.001)
        return await self._call(*arguments, **options)


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def shell(registered: Registration | AsyncRegistration) -> Any:
    found: Any = registered._begun() if isinstance(registered, AsyncRegistration) else registered
    return found._registrar


def hurry(registered: Registration | AsyncRegistration) -> None:
    """End the quiet, which no test waits for."""
    hub().background.submit(shell(registered).hurry()).result()


# ---- what the registry is told, and when


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a goodbye is worth waiting for."""
    for name in ("TELL_TIMEOUT", "LEAVE_TIMEOUT"):
        monkeypatch.setattr(registrar, name, 0.001)


@pytest.mark.parametrize("leave", [Registration.drain, Registration.close, Registration.__exit__])
@pytest.mark.parametrize("quiet", [0.0, 33.0])
def test_the_quiet_is_what_was_asked_for_however_it_ends(
    registry: TestRegistry, monkeypatch: pytest.MonkeyPatch, leave: Any, quiet: float
) -> None:
    """It is noted, and takes no time."""
    kept: list[float] = []
    drain = registrar.Registrar._drain

    async def at_once(self: registrar.Registrar, seconds: float, timeout: float) -> Drained:
        kept.append(seconds)
        return await drain(self, 0.0, timeout)

    monkeypatch.setattr(registrar.Registrar, "_drain", at_once)
    registered = register("web", 8000, quiet=quiet)
    leave(registered, *[None] * 3 if leave is Registration.__exit__ else ())
    registered.close()
    assert kept == [quiet]


def test_a_drain_is_told_for_longer_than_one_member_may_take(registry: TestRegistry, impatient: None) -> None:
    registered = register("web", 8000, quiet=0)
    gate = Gate(registry, "put")
    gate.failures = 3
    gate.open()
    registered.drain()
    assert gate.calls == 4
    assert states() == ["draining"]
    registered.close()


def test_a_lease_is_given_back_for_as_long_once_the_drain_was_told(
    registry: TestRegistry, impatient: None
) -> None:
    registered = register("web", 8000, quiet=0)
    gate = Gate(registry, "_revoke")
    gate.failures = 3
    gate.open()
    registered.close()
    assert gate.calls == 4
    assert stored() == []


def test_a_goodbye_has_an_end(
    registry: TestRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And a registry that could not be told is worth a word."""
    monkeypatch.setattr(registrar, "GOODBYE_TIMEOUT", 0.05)
    monkeypatch.setattr(registrar, "LEAVE_TIMEOUT", 0.05)
    registered = register("web", 8000, quiet=0)
    registry.set_down(True)
    with caplog.at_level(logging.WARNING, "discoclient.serving"):
        registered.close()
    assert registered.state == "gone"
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["the registry could not be told of the drain" in told[0], "within 15 s" in told[1]] == [True] * 2
    registry.set_down(False)
    assert states() == ["ready"]


def test_a_goodbye_that_works_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "discoclient.serving"), register("web", 8000, quiet=0):
        pass
    assert caplog.records == []


def test_a_lease_is_given_back_even_if_the_drain_could_not_be_told(
    registry: TestRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a registry that is full: it takes no more values, and gives up leases."""
    monkeypatch.setattr(registrar, "GOODBYE_TIMEOUT", 0.05)
    registered = register("web", 8000, quiet=0)
    Gate(registry, "put")
    registered.close()
    assert stored() == []


def test_the_quiet_begins_when_the_registry_has_the_drain(registry: TestRegistry) -> None:
    with register("web", 8000, quiet=MINUTE) as registered:
        gate = Gate(registry, "put")
        drained = in_thread(registered.drain)
        gate.reached.wait()
        assert shell(registered)._farewell is None
        gate.open()
        eventually(lambda: shell(registered)._farewell is not None, what="the quiet has begun")
        assert states() == ["draining"]
        hurry(registered)
        drained.join()


# ---- several who end it


def test_closing_waits_for_a_drain_that_runs() -> None:
    registered = register("web", 8000, quiet=MINUTE)
    drained = in_thread(registered.drain)
    eventually(lambda: states() == ["draining"], what="it drains")
    closed = in_thread(registered.close)
    eventually(lambda: shell(registered)._closing, what="it is being closed")
    assert closed.is_alive()
    assert states() == ["draining"]
    hurry(registered)
    drained.join()
    closed.join()
    assert stored() == []


def test_a_second_drain_waits_for_the_first() -> None:
    with register("web", 8000, quiet=MINUTE) as registered:
        ended: list[int] = []
        threads = [in_thread(lambda n=n: (registered.drain(), ended.append(n))) for n in range(3)]  # type: ignore[misc]
        eventually(lambda: states() == ["draining"], what="it drains")
        assert ended == []
        hurry(registered)
        for thread in threads:
            thread.join()


def test_many_may_close_it_at_the_same_time() -> None:
    registered = register("web", 8000, quiet=0.01)
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def close() -> None:
        barrier.wait()
        try:
            registered.close()
            assert registered.state == "gone"
        except BaseException as error:
            failures.append(error)

    threads = [in_thread(close) for _ in range(8)]
    for thread in threads:
        thread.join()
    assert failures == []
    assert stored() == []
    assert hub()._closers == []


# ---- on the background thread


@pytest.mark.parametrize("name", ["set_ready", "drain", "close", "register"])
def test_a_callback_that_would_wait_for_its_own_thread_is_told_so_at_once(name: str) -> None:
    failures: list[BaseException] = []

    def misuse(state: str) -> None:
        acts: dict[str, Callable[[], object]] = {
            "set_ready": lambda: registered.set_ready(False),
            "drain": lambda: registered.drain(),  # noqa: PLW0108 - there is none yet
            "close": lambda: registered.close(),  # noqa: PLW0108
            "register": lambda: register("web", 8001),
        }
        if state == "lost":
            try:
                acts[name]()
            except BaseException as error:
                failures.append(error)
                raise

    with register("web", 8000, quiet=0, on_state=misuse) as registered:
        lease = shell(registered)._keeper.lease
        assert lease is not None
        hub().background.submit(lease.revoke()).result()
        eventually(lambda: failures, what="it was misused")
        assert isinstance(failures[0], RuntimeError)
        assert "have a thread of your own do it" in str(failures[0])
        eventually(lambda: states() == ["ready"], what="everything goes on")
        assert not shell(registered)._is_hurried
    assert len(failures) == 1


# ---- the async twin, cancelled

RUNNERS: dict[str, Callable[[Callable[[], Coroutine[Any, Any, None]]], None]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "trio": trio.run,
}


@pytest.fixture(params=RUNNERS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, None]]], None]:
    return RUNNERS[request.param]


def is_over() -> bool:
    """Whether nothing is registered, nor being registered."""
    return hub()._closers == [] and stored() == []


@pytest.mark.parametrize("name", ["grant", "put"])
@pytest.mark.parametrize("is_awaited", [True, False], ids=["await", "async with"])
def test_who_is_cancelled_while_it_begins_does_not_wait_and_leaves_nothing(
    registry: TestRegistry, run: Any, name: str, is_awaited: bool
) -> None:
    gate = Gate(registry, name)

    async def begin(scope: anyio.CancelScope) -> None:
        with scope:
            if is_awaited:
                await aregister("web", 8000, quiet=0)
            else:
                async with aregister("web", 8000, quiet=0):
                    pass
        assert scope.cancelled_caught

    async def main() -> None:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(begin, scope)
            await eventually_async(gate.reached.is_set)
            scope.cancel()
        gate.open()
        await anyio.to_thread.run_sync(lambda: eventually(is_over, what="nothing is left"))

    run(main)


def test_a_task_of_asyncio_that_is_cancelled_while_it_begins_leaves_nothing(registry: TestRegistry) -> None:
    """`asyncio.timeout`, `wait_for` and `Task.cancel` know no shields."""
    gate = Gate(registry, "put")

    async def main() -> None:
        async def begin() -> None:
            async with aregister("web", 8000, quiet=0):
                pass

        task = asyncio.create_task(begin())
        await eventually_async(gate.reached.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        await asyncio.to_thread(eventually, is_over, what="nothing is left")

    asyncio.run(main())


@pytest.mark.parametrize("ticks", range(6))
def test_a_task_of_asyncio_that_is_cancelled_while_it_ends_is_gone_all_the_same(ticks: int) -> None:
    """Also before there is a thread to wait in: all of anyio's may be busy."""

    async def main() -> None:
        async def live() -> None:
            async with aregister("web", 8000, quiet=0):
                began.set()
                await over.wait()

        began, over = asyncio.Event(), asyncio.Event()
        limiter = anyio.to_thread.current_default_thread_limiter()
        task = asyncio.create_task(live())
        await began.wait()
        limiter.total_tokens = 1
        busy = threading.Event()
        other = asyncio.create_task(anyio.to_thread.run_sync(busy.wait))
        await eventually_async(lambda: limiter.borrowed_tokens == 1)
        over.set()
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        asyncio.get_running_loop().call_later(0.1, busy.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        await other
        await asyncio.to_thread(eventually, is_over, what="nothing is left")

    asyncio.run(main())


def test_what_is_given_up_when_it_has_just_begun_is_ended() -> None:
    registered = register("web", 8000, quiet=0)
    registered._abandon()
    eventually(is_over, what="nothing is left")


def test_what_is_given_up_before_it_begins_does_not_begin(registry: TestRegistry) -> None:
    gate = Gate(registry, "grant")
    prepared = aregister("web", 8000)._prepare()
    prepared._abandon()
    with pytest.raises(RegistryUnavailable, match="given up"):
        prepared._begin()
    assert is_over()
    assert gate.calls == 0


def test_a_drain_that_is_cancelled_goes_on_and_closing_waits_for_its_end(run: Any) -> None:
    async def main() -> None:
        registered = await aregister("web", 8000, quiet=MINUTE)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(registered.drain)
            await eventually_async(lambda: shell(registered)._draining is not None)
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(registered.close)
            await eventually_async(lambda: shell(registered)._closing is not None)
            assert await anyio.to_thread.run_sync(states) == ["draining"]
            await anyio.to_thread.run_sync(hurry, registered)

    run(main)
    assert stored() == []


def test_a_task_of_asyncio_that_is_cancelled_while_it_drains_still_drains_when_the_block_ends() -> None:
    async def main() -> None:
        async with aregister("web", 8000, quiet=MINUTE) as registered:
            task = asyncio.create_task(registered.drain())
            await eventually_async(lambda: shell(registered)._draining is not None)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            closing = asyncio.create_task(registered.close())
            await eventually_async(lambda: shell(registered)._closing is not None)
            assert await asyncio.to_thread(states) == ["draining"]
            await asyncio.to_thread(hurry, registered)
            await closing

    asyncio.run(main())
    assert stored() == []


def test_closing_before_it_began_is_closing_nothing(run: Any) -> None:
    async def main() -> None:
        registered = aregister("web", 8000, quiet=0)
        await registered.close()
        await registered.aclose()
        async with registered:
            assert registered.state == "registered"

    run(main)
    assert stored() == []


def test_an_option_that_does_not_exist_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="wieght"):
        aregister("web", 8000, wieght=1)
