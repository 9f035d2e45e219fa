"""The handle: what it lists, and what it says once it is closed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from discoclient import DiscoveryTimeout, RegistryHandle, State, connect
from discoclient.control.hub import Hub
from discoclient.testing import TestRegistry

BELOW = "/disco/v1/services/"


def test_the_services_are_those_that_have_an_instance_in_any_state(disco_registry: TestRegistry) -> None:
    for number, state in enumerate(State):
        disco_registry.add(f"{state}", port=80 + number, state=state)
    with connect() as handle:
        assert handle.services() == ["draining", "ready", "unready"]


@pytest.mark.parametrize(
    "key",
    [
        "stray",
        "stray/",
        "/inst-0001",
        "Bad_Name/inst-0001",
        "-bad/inst-0001",
        f"{'a' * 64}/inst-0001",
        "no text \udcff/inst-0001",
        "service/short",
        "service/NOT-AN-ID",
        "service/no-text-\udcff",
        "service/inst-0001/",
        "service/inst-0001/nested",
        "service//inst-0001",
        "service\n/inst-0001",
        "service/inst-0001\n",
    ],
)
def test_a_key_that_names_no_service_and_id_is_no_service(disco_registry: TestRegistry, key: str) -> None:
    """What `services` lists can be asked for: `instances` takes no other names."""
    disco_registry.put_raw(BELOW + key, b"{}")
    good = disco_registry.add("good", port=80)
    with connect() as handle:
        assert handle.services() == ["good"]
        assert [handle.instances(service) for service in handle.services()] == [[good]]


def test_a_key_without_a_lease_is_no_service(disco_registry: TestRegistry) -> None:
    disco_registry.put_raw(f"{BELOW}forgotten/inst-0001", b"{}", has_lease=False)
    disco_registry.put_raw(f"{BELOW}leased/inst-0001", b"{}")
    with connect() as handle:
        assert handle.services() == ["leased"]


@pytest.mark.parametrize(
    "look",
    [
        RegistryHandle.services,
        RegistryHandle.members,
        lambda handle: handle.instances("experiment"),
        lambda handle: handle.snapshot("experiment"),
        lambda handle: next(handle.watch("experiment")),
        lambda handle: handle.age("experiment"),
        lambda handle: handle.resolver("experiment"),
    ],
    ids=["services", "members", "instances", "snapshot", "watch", "age", "resolver"],
)
def test_a_handle_that_is_closed_says_so_whatever_it_is_asked(
    disco_registry: TestRegistry, look: Callable[[RegistryHandle], object]
) -> None:
    disco_registry.add("experiment", port=80)
    with connect() as handle:
        look(handle)
    with pytest.raises(RuntimeError, match="this handle is closed"):
        look(handle)


@pytest.mark.parametrize("seconds", [0.05, 0.3])
def test_discovery_timeout_is_how_long_a_look_waits(disco_registry: TestRegistry, seconds: float) -> None:
    disco_registry.set_down(True)
    with connect(discovery_timeout=seconds) as handle:
        began = time.monotonic()
        with pytest.raises(DiscoveryTimeout, match=f"after {seconds} s"):
            handle.instances("experiment")
        assert seconds <= time.monotonic() - began < 4


def test_discovery_timeout_says_too_when_one_members_word_will_do(
    disco_registry: TestRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After half of it, which is the hub's affair."""
    told: list[object] = []
    acquire = Hub.acquire

    def note(hub: Hub, *arguments: Any, **options: Any) -> Any:
        told.append(options.get("discovery_timeout"))
        return acquire(hub, *arguments, **options)

    monkeypatch.setattr(Hub, "acquire", note)
    for seconds in (2.0, 30.0):
        with connect(discovery_timeout=seconds) as handle:
            assert handle.instances("experiment") == []
    assert told == [2.0, 30.0]
