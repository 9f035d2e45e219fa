"""`register` and `aregister`, with the registry in memory: every argument, every state."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest
import trio

from discoclient import (
    ConfigError,
    Instance,
    RegistryError,
    RegistryUnavailable,
    aregister,
    connect,
    register,
)
from discoclient.control.hub import hub
from discoclient.registry.memory import MemoryRegistry
from discoclient.testing import TestRegistry, memory_registry
from tests.support.eventually import eventually


@pytest.fixture(autouse=True)
def registry() -> Iterator[TestRegistry]:
    with memory_registry() as found:
        yield found


def stored() -> list[Instance]:
    with connect() as handle:
        return handle.instances("web")


def backing(registry: TestRegistry) -> MemoryRegistry:
    found = hub().registry(registry._address)
    assert isinstance(found, MemoryRegistry)
    return found


def test_it_is_in_the_registry_when_register_returns_and_not_any_more_after_the_block() -> None:
    with register("web", 8000, quiet=0) as registration:
        assert registration.state == "registered"
        assert stored() == [registration.instance]
    assert registration.state == "gone"
    assert stored() == []


def test_the_record_says_what_the_arguments_say() -> None:
    with register(
        "web",
        8000,
        host="10.1.2.3",
        scheme="https",
        version="2.4.1",
        zone="eu-1a",
        weight=50,
        metadata={"team": "blue"},
        http_keepalive=7.5,
        hostname="web-3",
        slot="b",
        pid=42,
        instance_id="an-id-of-its-own",
        quiet=0,
    ):
        (found,) = stored()
    assert (found.host, found.port, found.scheme) == ("10.1.2.3", 8000, "https")
    assert (found.version, found.zone, found.weight) == ("2.4.1", "eu-1a", 50)
    assert (found.metadata, found.http_keepalive) == ({"team": "blue"}, 7.5)
    assert (found.hostname, found.slot, found.pid) == ("web-3", "b", 42)
    assert found.id == "an-id-of-its-own"


def test_what_is_left_out_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISCO_HOST", "DISCO_HOSTNAME", "DISCO_ZONE"):
        monkeypatch.delenv(name, raising=False)
    with register("web", 8000, quiet=0), register("web", 8001, quiet=0):
        one, other = stored()
    assert one.id != other.id
    assert (one.host, one.scheme, one.state, one.weight, one.slot) == ("127.0.0.1", "http", "ready", 100, "0")
    assert (one.pid, one.hostname, one.zone) == (os.getpid(), socket.gethostname(), None)
    assert one.registered_at is not None
    assert one.registered_at.endswith("Z")


def test_the_environment_says_what_the_arguments_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCO_HOST", "10.9.9.9")
    monkeypatch.setenv("DISCO_HOSTNAME", "web-7")
    monkeypatch.setenv("DISCO_ZONE", "eu-1b")
    with register("web", 8000, quiet=0):
        (found,) = stored()
    assert (found.host, found.hostname, found.zone) == ("10.9.9.9", "web-7", "eu-1b")


def test_the_lease_has_the_ttl_that_was_asked_for(registry: TestRegistry) -> None:
    with register("web", 8000, ttl=33, quiet=0) as registration:
        lease = registration._registrar._keeper.lease
        assert lease is not None
        assert lease.ttl == 33


def test_a_registry_that_is_named_comes_before_that_of_the_environment(registry: TestRegistry) -> None:
    elsewhere = f"{registry.url}/elsewhere"
    with register("web", 8000, registry=elsewhere, quiet=0) as registration, connect(elsewhere) as handle:
        assert handle.instances("web") == [registration.instance]
        assert stored() == []
    with register("web", 8000, quiet=0) as registration:
        assert stored() == [registration.instance]


def test_a_host_s_name_is_registered_where_the_registry_s_url_admits_them(registry: TestRegistry) -> None:
    """Whatever is told of it later, too."""
    lenient = f"{registry.url}?hostnames=1"
    with (
        connect(lenient) as handle,
        register("web", 8000, host="web.example", registry=lenient, quiet=0) as registration,
    ):
        registration.set_ready(False)
        told = [(each.host, each.state) for each in handle.instances("web")]
        assert told == [("web.example", "unready")]
    with pytest.raises(ConfigError, match="host is not an IP address"):
        register("web", 8000, host="web.example", registry=registry.url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"service": "Web"}, "service name"),
        ({"service": None}, "None is not a service name"),
        ({"port": 0}, "port is out of range; port must be a whole number, 1 to 65535; got 0"),
        ({"port": True}, "port must be a whole number, 1 to 65535; got True"),
        ({"port": "80"}, "port must be a whole number, 1 to 65535; got '80'"),
        ({"host": "web.example"}, "host is not an IP address"),
        ({"host": "169.254.169.254"}, "link-local"),
        ({"host": 0}, "host must be an IP address .* got 0"),
        ({"scheme": "ftp"}, "scheme is not http or https; scheme must be 'http' or 'https'; got 'ftp'"),
        ({"scheme": None}, "scheme must be 'http' or 'https'; got None"),
        ({"version": 2.4}, r"version must be text or None; got 2\.4"),
        ({"zone": b""}, "zone must be text, or None .* got b''"),
        ({"hostname": 0}, "hostname must be text, or None .* got 0"),
        ({"slot": None}, "slot must be text; got None"),
        ({"weight": 10_001}, "weight is out of range; weight must be a number, 0 to 10000; got 10001"),
        ({"weight": None}, "weight must be a number, 0 to 10000; got None"),
        ({"weight": "5"}, "weight must be a number, 0 to 10000; got '5'"),
        ({"weight": float("nan")}, "weight must be a number, 0 to 10000; got nan"),
        ({"ttl": 1}, "2 seconds or more"),
        ({"ttl": "15"}, "ttl must be a number of seconds"),
        ({"quiet": -1}, "quiet must be a number of seconds"),
        ({"timeout": 0}, "timeout must be a number of seconds"),
        ({"http_keepalive": -1}, "http_keepalive is negative"),
        ({"http_keepalive": 10**400}, "http_keepalive is longer than a year"),
        ({"http_keepalive": float("inf")}, "http_keepalive must be a number of seconds, 0 to a year"),
        ({"http_keepalive": "5"}, "http_keepalive must be a number of seconds, 0 to a year"),
        ({"pid": -1}, "pid is out of range; pid must be a whole number, 0 to 2147483647"),
        ({"pid": "1"}, "pid must be a whole number, 0 to 2147483647, or None; got '1'"),
        ({"instance_id": "short"}, "instance_id must be 8 to 64"),
        ({"instance_id": 12345678}, "instance_id must be 8 to 64"),
        ({"metadata": {"a": "x" * 5000}}, "longer than 4096 bytes"),
        ({"metadata": {"a": object()}}, "can't be written as JSON"),
        ({"metadata": [1]}, "metadata must be a mapping, such as a dict; got list"),
        ({"metadata": "a=b"}, "metadata must be a mapping, such as a dict; got str"),
        ({"metadata": 0}, "metadata must be a mapping, such as a dict; got int"),
        ({"on_state": 5}, "on_state must be a function of the new state, or None; got 5"),
        ({"registry": "http://x"}, "etcd://host:port"),
        ({"registry": b"etcd://me:secret@h"}, "registry must be a URL or None; got bytes"),
        ({"registry": "static://web=127.0.0.1:1"}, "a static registry is fixed"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_which(options: dict[str, Any], message: str) -> None:
    """And it is one at once: nothing is asked of the registry, and nothing begun that would have to be ended."""
    arguments: dict[str, Any] = {"service": "web", "port": 8000, "timeout": 0.5, **options}
    with pytest.raises(ConfigError, match=message):
        register(**arguments)
    assert not hub().background.is_running


def test_a_registry_that_is_down_at_first_is_an_error_and_leaves_nothing(registry: TestRegistry) -> None:
    registry.set_down(True)
    with pytest.raises(RegistryUnavailable, match=r"within 0\.2 s"):
        register("web", 8000, timeout=0.2)
    registry.set_down(False)
    assert stored() == []
    assert hub()._closers == []


def test_a_second_registration_of_the_same_id_is_refused_and_the_first_one_stays() -> None:
    with register("web", 8000, instance_id="only-one-of-me", quiet=0) as first:
        with pytest.raises(RegistryError, match="another registration holds this instance id"):
            register("web", 8001, instance_id="only-one-of-me", quiet=0)
        assert stored() == [first.instance]
        assert first.state == "registered"


def test_a_key_that_is_deleted_or_a_lease_that_is_revoked_is_put_right(registry: TestRegistry) -> None:
    states: list[str] = []
    with register("web", 8000, quiet=0, on_state=states.append) as registration:
        registry.remove(registration.instance)
        eventually(lambda: states == ["registered", "lost", "registered"], what="the key is back")
        lease = registration._registrar._keeper.lease
        assert lease is not None
        registry._change(lambda store: store.revoke(lease.id))
        eventually(lambda: states.count("registered") == 3, what="a new lease holds the key")
        assert stored() == [registration.instance]
    assert states[-1] == "gone"


def test_a_registry_that_is_wiped_has_the_service_again(registry: TestRegistry) -> None:
    with register("web", 8000, ttl=2, quiet=0) as registration:
        registry.wipe()
        eventually(lambda: stored() == [registration.instance], what="it is registered anew")


def test_a_callback_that_raises_harms_nobody() -> None:
    def broken(state: str) -> None:
        raise RuntimeError("oops")

    with register("web", 8000, quiet=0, on_state=broken) as registration:
        assert registration.state == "registered"
    assert registration.state == "gone"


def test_set_ready_changes_the_record_and_not_the_registration() -> None:
    with register("web", 8000, quiet=0) as registration:
        registration.set_ready(False)
        assert [instance.state for instance in stored()] == ["unready"]
        assert registration.state == "registered"
        registration.set_ready(True)
        assert [instance.state for instance in stored()] == ["ready"]


def test_a_drain_is_seen_while_the_service_still_serves() -> None:
    with register("web", 8000, quiet=0.2) as registration:
        drained = threading.Thread(target=registration.drain)
        drained.start()
        eventually(lambda: [i.state for i in stored()] == ["draining"], what="callers see the drain")
        assert drained.is_alive()  # it goes on serving for as long as `quiet` says
        drained.join()
        assert registration.state == "draining"
        registration.set_ready(True)
        assert [instance.state for instance in stored()] == ["draining"]
    assert stored() == []


def test_without_quiet_a_drain_does_not_wait() -> None:
    with register("web", 8000, quiet=0) as registration:
        registration.drain()
        assert registration.state == "draining"


def test_closing_twice_is_closing_once() -> None:
    registration = register("web", 8000, quiet=0)
    registration.close()
    registration.close()
    registration.drain()
    registration.set_ready(True)
    assert registration.state == "gone"


def test_an_error_in_the_block_comes_through_and_the_service_leaves() -> None:
    with pytest.raises(ZeroDivisionError), register("web", 8000, quiet=0):
        raise ZeroDivisionError
    assert stored() == []


RUNNERS: dict[str, Callable[[Callable[[], Coroutine[Any, Any, None]]], None]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "trio": trio.run,
}


@pytest.fixture(params=RUNNERS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, None]]], None]:
    return RUNNERS[request.param]


def test_the_async_twin_does_the_same(run: Any) -> None:
    async def main() -> None:
        async with aregister("web", 8000, version="9", quiet=0) as registration:
            assert registration.state == "registered"
            assert [instance.version for instance in stored()] == ["9"]
            await registration.set_ready(False)
            assert [instance.state for instance in stored()] == ["unready"]
            await registration.drain()
            assert registration.state == "draining"
        assert registration.state == "gone"

    run(main)
    assert stored() == []


def test_the_async_twin_may_be_awaited_and_closed(run: Any) -> None:
    async def main() -> None:
        registration = await aregister("web", 8000, quiet=0)
        assert stored() == [registration.instance]
        await registration.close()
        await registration.aclose()

    run(main)
    assert stored() == []


def test_an_async_block_that_is_cancelled_deregisters_all_the_same(run: Any) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with aregister("web", 8000, quiet=0):
                scope.cancel()
                await anyio.sleep_forever()

    run(main)
    assert stored() == []


def test_an_async_registration_that_has_not_begun_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = aregister("web", 8000).state
