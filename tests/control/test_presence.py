"""The presence of a process: there before it knows anything, best effort whatever the registry does, given back at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from random import Random
from time import monotonic
from typing import Any

import pytest

from discoclient import DiscoClient, NoInstances, connect
from discoclient.control import presence as module
from discoclient.control.hub import find_address, fresh_hub, hub
from discoclient.control.presence import PresenceKeeper
from discoclient.model.errors import RegistryDenied
from discoclient.registry.keys import Keys
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.presence import Presence, decode_presence
from discoclient.registry.protocol import Entry
from discoclient.testing import TestRegistry, memory_registry
from tests.support.eventually import eventually, eventually_async
from tests.support.processes import Processes

KEYS = Keys()
LONG = 30.0
DENIED = RegistryDenied("no such role")


class Presences:
    """A registry in memory, and presences in it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.registry = MemoryRegistry(self.store, clock=monotonic)
        self.tasks: list[asyncio.Task[None]] = []

    def keeper(self, **options: Any) -> PresenceKeeper:
        return PresenceKeeper(
            self.registry, KEYS, clock=monotonic, rng=Random(1), spawn=self._spawn, **options
        )

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        self.tasks.append(asyncio.ensure_future(coroutine))
        return self.tasks[-1]

    def entries(self, service: str = "web") -> list[Entry]:
        return list(self.store.list(KEYS.clients(service)).entries)

    def presence(self, service: str = "web") -> Presence | None:
        entries = self.entries(service)
        return decode_presence(entries[0].value, id=entries[0].key.rpartition("/")[2]) if entries else None

    def refuse(self, name: str) -> Callable[[], None]:
        """The registry denies all calls of that name, until what is returned is called."""
        allowed = getattr(self.registry, name)

        async def denied(*arguments: Any, **options: Any) -> Any:
            raise DENIED

        setattr(self.registry, name, denied)
        return lambda: setattr(self.registry, name, allowed)


@pytest.fixture
async def there() -> AsyncIterator[Presences]:
    found = Presences()
    yield found
    for task in found.tasks:
        task.cancel()
    await asyncio.gather(*found.tasks, return_exceptions=True)
    await found.registry.aclose()


# ---- joining


async def test_who_has_joined_stands_in_the_registry_and_knows_nothing_yet(
    there: Presences, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCO_HOSTNAME", "web-3")
    keeper = there.keeper()
    assert await keeper.join("web", timeout=LONG)
    assert keeper.is_announced("web")
    assert there.presence() == Presence(id=keeper.id, pid=os.getpid(), hostname="web-3")
    assert there.entries()[0].lease


async def test_of_a_hundred_that_join_at_once_each_looks_up_only_when_it_is_its_turn(
    there: Presences,
) -> None:
    keeper, looks = there.keeper(), 0
    is_announced = keeper._attendance.is_announced

    def counted(service: str) -> bool:
        nonlocal looks
        looks += 1
        return is_announced(service)

    keeper._attendance.is_announced = counted  # type: ignore[method-assign]
    assert all(await asyncio.gather(*(keeper.join(f"web-{number}", timeout=LONG) for number in range(100))))
    assert looks <= 4 * 100


async def test_what_it_is_is_said(there: Presences) -> None:
    await there.keeper(kind="sidecar").join("web", timeout=LONG)
    presence = there.presence()
    assert presence is not None
    assert presence.kind == "sidecar"


async def test_nothing_is_asked_of_the_registry_before_a_service_is_called(there: Presences) -> None:
    there.keeper()
    await asyncio.sleep(0.01)
    assert there.tasks == []
    assert there.store.revision == 1


async def test_several_services_are_joined_under_one_lease(there: Presences) -> None:
    keeper = there.keeper()
    joined = await asyncio.gather(*(keeper.join(name, timeout=LONG) for name in ("web", "api", "db")))
    assert joined == [True] * 3
    assert len({there.entries(name)[0].lease for name in ("web", "api", "db")}) == 1
    assert len(there.tasks) == 1


async def test_two_processes_have_a_key_each(there: Presences) -> None:
    one, two = there.keeper(), there.keeper()
    await one.join("web", timeout=LONG)
    await two.join("web", timeout=LONG)
    assert {entry.key for entry in there.entries()} == {KEYS.client("web", each.id) for each in (one, two)}
    assert len({entry.lease for entry in there.entries()}) == 2


async def test_to_join_again_is_over_at_once_and_takes_nothing_back(there: Presences) -> None:
    keeper = there.keeper()
    await keeper.join("web", timeout=LONG)
    assert await keeper.join("web", timeout=LONG)
    assert len(there.entries()) == 1


@pytest.mark.parametrize("call", ["grant", "put"])
async def test_who_is_refused_goes_on_at_once_and_says_so_once(
    there: Presences, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "discoclient.control")
    there.refuse(call)
    keeper = there.keeper()
    began = monotonic()
    assert not await keeper.join("web", timeout=LONG)
    assert not await keeper.join("api", timeout=LONG)
    assert monotonic() - began < LONG / 2
    assert [record.message for record in caplog.records if "not allowed" in record.message] == [
        "presence is not allowed here, so drains wait a fixed time for us: no such role"
    ]


async def test_while_the_registry_is_away_it_is_waited_for_so_long_and_no_longer(there: Presences) -> None:
    await there.registry.set_down(True)
    keeper = there.keeper()
    began = monotonic()
    assert not await keeper.join("web", timeout=0.05)
    assert 0.05 <= monotonic() - began < LONG / 2
    assert there.entries() == []
    await there.registry.set_down(False)
    await eventually_async(there.entries, what="it is tried on all the same")


async def test_a_registry_that_comes_back_in_time_is_joined(there: Presences) -> None:
    await there.registry.set_down(True)
    keeper = there.keeper()
    joining = asyncio.create_task(keeper.join("web", timeout=LONG))
    await asyncio.sleep(0.01)
    assert not joining.done()
    await there.registry.set_down(False)
    assert await joining


def test_how_long_is_waited_is_bounded_by_default() -> None:
    assert PresenceKeeper.join.__defaults__ == (module.JOIN_TIMEOUT,)
    assert module.JOIN_TIMEOUT < 5.0, "the first list has to be there within discovery_timeout"


# ---- telling and leaving


async def test_what_it_knows_and_waits_for_is_told(there: Presences) -> None:
    keeper = there.keeper()
    await keeper.join("web", timeout=LONG)
    keeper.tell("web", 7, {"aaaaaaaa": 2})
    await eventually_async(lambda: (found := there.presence()) is not None and found.applied == 7)
    presence = there.presence()
    assert presence is not None
    assert presence.busy == {"aaaaaaaa": 2}


async def test_who_left_stands_there_no_more_and_the_others_do(there: Presences) -> None:
    keeper = there.keeper()
    await keeper.join("web", timeout=LONG)
    await keeper.join("api", timeout=LONG)
    keeper.leave("web")
    await eventually_async(lambda: not there.entries("web"))
    assert not keeper.is_announced("web")
    assert keeper.is_announced("api")
    assert len(there.entries("api")) == 1
    assert await keeper.join("web", timeout=LONG)


async def test_the_lease_is_kept_alive(there: Presences) -> None:
    keeper = there.keeper(ttl=1.0)
    await keeper.join("web", timeout=LONG)
    (before,) = there.entries()
    renewals = 0
    renew = there.store.renew

    def count(lease: int, now: float) -> int:
        nonlocal renewals
        renewals += 1
        return renew(lease, now)

    there.store.renew = count  # type: ignore[method-assign]
    await eventually_async(lambda: renewals >= 4, what="renewed for longer than it lives")
    assert there.entries() == [before]


async def test_a_lease_that_was_lost_is_replaced(there: Presences) -> None:
    keeper = there.keeper(ttl=1.0)
    await keeper.join("web", timeout=LONG)
    (before,) = there.entries()
    await there.registry.change(lambda store: store.revoke(before.lease))
    await eventually_async(there.entries)
    (after,) = there.entries()
    assert after.lease != before.lease
    assert after.key == before.key


async def test_a_delete_whose_lease_was_lost_meanwhile_ends_nothing(there: Presences) -> None:
    keeper = there.keeper(ttl=1.0)
    await keeper.join("web", timeout=LONG)
    (before,) = there.entries()
    delete, reached, opened = there.registry.delete, asyncio.Event(), asyncio.Event()

    async def late(key: str) -> None:
        reached.set()
        await opened.wait()
        await delete(key)

    there.registry.delete = late  # type: ignore[method-assign]
    keeper.leave("web")
    await reached.wait()
    await there.registry.change(lambda store: store.revoke(before.lease))
    await eventually_async(lambda: keeper._attendance.lease is None)
    opened.set()
    assert await keeper.join("web", timeout=LONG)
    assert not there.tasks[0].done()


# ---- the end


async def test_at_the_end_the_lease_is_given_back_and_all_keys_with_it(there: Presences) -> None:
    keeper = there.keeper()
    await keeper.join("web", timeout=LONG)
    await keeper.join("api", timeout=LONG)
    await keeper.close()
    assert there.store.list("/").entries == ()
    await asyncio.gather(*there.tasks, return_exceptions=True)
    assert there.tasks[0].cancelled()


async def test_the_end_is_no_error_without_a_lease_or_without_a_registry(there: Presences) -> None:
    await there.keeper().close()
    keeper = there.keeper()
    await keeper.join("web", timeout=LONG)
    await there.registry.set_down(True)
    await keeper.close()
    await keeper.close()


# ---- in a process that uses the SDK


def clients(registry: TestRegistry, service: str = "web") -> list[Entry]:
    background = hub().background
    listing = background.run(registry._registry().list(KEYS.clients(service)))
    return list(listing.entries)


@contextmanager
def calling(service: str = "web", **options: Any) -> Iterator[DiscoClient]:
    """A client that has looked for an instance, and found none."""
    with DiscoClient(service, **options) as client:
        with pytest.raises(NoInstances):
            client.get("/")
        yield client


def test_a_caller_is_announced_before_it_lists() -> None:
    with memory_registry() as registry:
        order: list[str] = []
        backing: Any = registry._registry()
        complete, put = backing.list, backing.put

        async def watched_list(range: str, **options: Any) -> Any:
            order.append(f"list {range}")
            return await complete(range, **options)

        async def watched_put(key: str, *arguments: Any, **options: Any) -> Any:
            done = await put(key, *arguments, **options)
            order.append(f"stands {key.rpartition('/')[0]}/")
            return done

        backing.list, backing.put = watched_list, watched_put
        with calling():
            assert order[:2] == [f"stands {KEYS.clients('web')}", f"list {KEYS.service('web')}"]


def test_clients_of_one_process_share_one_key_and_several_services_one_lease() -> None:
    with memory_registry() as registry, calling(), calling(), calling("api"):
        assert len(clients(registry)) == 1
        assert {entry.lease for entry in clients(registry)} == {
            entry.lease for entry in clients(registry, "api")
        }


def test_who_only_looks_is_nobody_to_be_waited_for() -> None:
    with memory_registry() as registry, connect() as handle:
        assert handle.instances("web") == []
        assert clients(registry) == []
        with calling():  # who calls is, also if somebody has looked before
            assert len(clients(registry)) == 1
            assert handle.instances("web") == []


def test_presence_can_be_switched_off() -> None:
    with memory_registry() as registry:
        quiet = f"{registry.url}?presence=0"
        with calling(registry=quiet):
            assert clients(registry) == []
        with calling(registry=registry.url):
            assert len(clients(registry)) == 1


def test_a_service_that_is_sent_elsewhere_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCO_OVERRIDE_WEB", "http://127.0.0.1:1")
    with memory_registry() as registry, DiscoClient("web") as client:
        client.wait_ready(5)
        assert clients(registry) == []


def test_calls_go_on_where_presence_is_forbidden() -> None:
    with memory_registry() as registry:
        backing: Any = registry._registry()

        async def denied(*arguments: Any, **options: Any) -> Any:
            raise DENIED

        backing.grant = denied
        with calling():
            assert clients(registry) == []


def told(registry: TestRegistry) -> Presence | None:
    entries = clients(registry)
    if not entries:
        return None
    return decode_presence(entries[0].value, id=entries[0].key.rpartition("/")[2])


def test_a_drain_is_acknowledged_with_the_revision_at_which_it_was_told() -> None:
    with memory_registry() as registry, calling():
        instance = registry.add("web", port=1)
        registry.drain(instance)
        (entry,) = hub().background.run(registry._registry().list(KEYS.service("web"))).entries
        eventually(
            lambda: (found := told(registry)) is not None and found.has_left(instance.id, entry.mod_revision)
        )


def test_after_the_registry_lost_its_data_nobody_claims_to_know_what_it_has_yet_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Revisions begin anew; a word from before would acknowledge each drain of a long time to come."""
    monkeypatch.setitem(PresenceKeeper.__init__.__kwdefaults__, "ttl", 1.0)
    with memory_registry() as registry, calling():
        for _ in range(20):
            registry.drain(registry.add("web", port=1))
        eventually(lambda: (found := told(registry)) is not None and found.applied > 40)
        registry.wipe()
        instance = registry.add("web", port=2)

        def now() -> int:
            return hub().background.run(registry._registry().list("/")).revision

        eventually(lambda: told(registry) is not None, what="it is announced again", timeout=20)
        eventually(lambda: (found := told(registry)) is not None and found.applied <= now())
        registry.drain(instance)
        eventually(lambda: (found := told(registry)) is not None and found.has_left(instance.id, now() - 1))


def test_a_service_that_nobody_calls_any_more_is_left() -> None:
    with fresh_hub(linger=0.0):
        url = "memory://left"
        registry = hub().registry(find_address(url))

        def standing() -> int:
            return len(hub().background.run(registry.list(KEYS.clients("web"))).entries)

        with calling(registry=url):
            assert standing() == 1
        eventually(lambda: standing() == 0)


def test_a_process_that_ends_leaves_nothing_behind() -> None:
    with fresh_hub() as mine:
        registry: Any = mine.registry(find_address("memory://ended"))
        with calling(registry="memory://ended"):
            assert len(registry._store.list(KEYS.clients("web")).entries) == 1
        mine.close(timeout=5.0)
        assert registry._store.list("/").entries == ()


FORKING = """
import os, signal, sys
from discoclient import DiscoClient, NoInstances

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

def call():
    try:
        client.get("/")
    except NoInstances:
        print("called", os.getpid(), flush=True)

client = DiscoClient("web", registry=sys.argv[1])
call()
child = os.fork()
if not child:
    call()
    signal.sigwait({signal.SIGUSR1})
    raise SystemExit(0)
print("ended", os.waitpid(child, 0)[1], flush=True)
call()
signal.sigwait({signal.SIGUSR1})
"""


def test_a_forked_child_is_a_caller_of_its_own(processes: Processes, registry_url: str) -> None:
    """Its parent's word is not its own: it may still send where its parent does not."""
    address = find_address(registry_url)

    def pids() -> set[int | None]:
        range = address.keys.clients("web")
        entries = shared.background.run(shared.registry(address).list(range)).entries
        found = {decode_presence(entry.value, id=entry.key[len(range) :]).pid for entry in entries}
        assert len(found) == len(entries)
        return found

    with fresh_hub() as shared:
        parent = processes.code(FORKING, registry_url)
        parent.wait_for_line("called")
        child = int(parent.wait_for_line("called").split()[1])
        assert pids() == {parent.pid, child}
        os.kill(child, signal.SIGUSR1)
        parent.wait_for_line("ended 0")
        assert pids() == {parent.pid}
        parent.wait_for_line("called")
        os.kill(parent.pid, signal.SIGUSR1)
        assert parent.wait() == 0, parent.errors
        eventually(lambda: pids() == set(), what="both have given their leases back")
