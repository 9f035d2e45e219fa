"""What stands in the registry is not what the service wrote: it puts that right, and does not fight over it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from discoclient import Registration, RegistryUnavailable, register
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster, EtcdFailed, EtcdRefused
from discoclient.serving import registrar
from tests.conftest import ELECTION, HEARTBEAT
from tests.faults.controls import without_own_key_watch, without_repair_limit
from tests.faults.harness import Unshuffled, url_first
from tests.faults.raw import Raw, RawKey
from tests.support.eventually import eventually
from tests.support.processes import Processes


@pytest.fixture
def url(registry_url: str) -> str:
    """The node that all tests share: nothing here breaks it."""
    return registry_url


@pytest.fixture
def raw(etcd: EtcdCluster, url: str) -> Raw:
    return Raw(etcd, url)


def put_right(url: str, *, ttl: float = 60.0, states: list[str] | None = None) -> Registration:
    """A registration whose next renewal is far away: only a look at its own key can tell it."""
    told = states.append if states is not None else None
    return register("experiment", 9, host="127.0.0.1", ttl=ttl, quiet=0, registry=url, on_state=told)


def revoke_the_lease(raw: Raw, key: RawKey) -> None:
    raw.revoke(key.lease)


def delete_the_key(raw: Raw, key: RawKey) -> None:
    raw.delete(key.key)


def overwrite_the_value(raw: Raw, key: RawKey) -> None:
    raw.put(key.key, b'{"v": 1, "not": "what it wrote"}', lease=key.lease)


def take_the_lease_away(raw: Raw, key: RawKey) -> None:
    raw.put(key.key, key.value)


@pytest.mark.parametrize(
    "harm",
    [revoke_the_lease, delete_the_key, overwrite_the_value, take_the_lease_away],
    ids=lambda harm: harm.__name__,
)
def test_a_registration_puts_itself_back_at_once(
    hub: Hub, url: str, raw: Raw, harm: Callable[[Raw, RawKey], None]
) -> None:
    def stands(registration: Registration, value: bytes) -> bool:
        found = raw.instance("experiment", registration.instance.id)
        return found is not None and found.value == value and raw.time_to_live(found.lease) > 0

    states: list[str] = []
    with put_right(url, states=states) as registration, put_right(url) as control:
        without_own_key_watch(control)
        # Its own watch has to stand, or the first look at the key would find what we do to it.
        eventually(lambda: registration._registrar._follower.phase == "live", what="it watches its own key")
        before = raw.instances("experiment")
        for id in (control.instance.id, registration.instance.id):
            harm(raw, before[id])
        harmed_at = time.monotonic()
        value = before[registration.instance.id].value
        eventually(
            lambda: stands(registration, value), timeout=5, what="the key is back under a living lease"
        )
        took = time.monotonic() - harmed_at
        with pytest.raises(AssertionError, match="the key is back"):
            control_value = before[control.instance.id].value
            eventually(
                lambda: stands(control, control_value),
                timeout=max(0.5, took),
                what="the key is back under a lease",
            )
        eventually(lambda: registration.state == "registered", what="and it says so")
        assert states == ["registered", "lost", "registered"]
        if harm is not overwrite_the_value:
            assert control.state == "registered", "which is not true"


class Hasty(Random):
    """Jitter that never makes anybody wait longer than has to be."""

    def uniform(self, a: float, b: float) -> float:
        return a


def test_two_that_want_different_things_do_not_fight(hub: Hub, url: str, raw: Raw) -> None:
    hub.rng = Hasty()
    with put_right(url) as registration, put_right(url) as control:
        without_repair_limit(control)
        repaired = {registration.instance.id: 0, control.instance.id: 0}
        began = time.monotonic()
        while time.monotonic() - began < 3:
            for id in raw.instances("experiment"):
                raw.delete(raw.keys.instance("experiment", id))
                repaired[id] += 1

        def assert_gave_way(fighter: Registration) -> None:
            # The key that stood there at first, three repairs at once, then one a second or less.
            assert 2 <= repaired[fighter.instance.id] <= 1 + 3 + 3, "it fights"

        assert_gave_way(registration)
        with pytest.raises(AssertionError, match="it fights"):
            assert_gave_way(control)
        eventually(
            lambda: registration.instance.id in raw.instances("experiment"), what="it is back in the end"
        )


# ---- a registry that is full

QUOTA = 128 * 1024


@pytest.fixture
def full_etcd() -> Iterator[EtcdCluster]:
    """A node that will be full after a few values; etcd's own default is 2 GiB."""
    quota = [f"--quota-backend-bytes={QUOTA}"]
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, extra_args=quota) as started:
        yield started


def fill(raw: Raw) -> None:
    for number in range(100):
        try:
            raw.put(f"/junk/{number}", b"x" * 16_000)
        except EtcdRefused:
            return
    raise AssertionError("it is not full")


def make_room(etcd: EtcdCluster, raw: Raw) -> None:
    for number in range(100):
        raw.delete(f"/junk/{number}")
    etcd.compact()
    etcd.etcdctl("defrag")
    etcd.etcdctl("alarm", "disarm")


def unable_to_renew(registration: Registration) -> None:
    lease: Any = registration._registrar._keeper.lease

    async def refused() -> float:
        raise RegistryUnavailable("mvcc: database space exceeded")

    lease.renew = refused


def test_a_full_registry_keeps_who_is_there_and_refuses_newcomers_loudly(
    full_etcd: EtcdCluster, hub: Hub
) -> None:
    url = f"{full_etcd.registry_url}/t/{uuid.uuid4().hex}"
    raw = Raw(full_etcd, url)

    def registered(timeout: float = 10.0) -> Registration:
        return register("experiment", 9, host="127.0.0.1", ttl=3, quiet=0, registry=url, timeout=timeout)

    with registered() as registration, registered() as control:
        unable_to_renew(control)
        before = raw.instances("experiment")
        fill(raw)
        full_at = time.monotonic()
        with pytest.raises(RegistryUnavailable, match=r"could not register within 1\.5 s: .*space exceeded"):
            registered(timeout=1.5)

        def assert_still_there(who: Registration) -> None:
            assert raw.instances("experiment").get(who.instance.id) == before[who.instance.id], (
                "it is not there"
            )

        eventually(lambda: time.monotonic() - full_at > 4.5, what="a lease that was not renewed has run out")
        assert_still_there(registration)
        with pytest.raises(AssertionError, match="it is not there"):
            assert_still_there(control)
        make_room(full_etcd, raw)
        with registered() as newcomer:
            assert newcomer.instance.id in raw.instances("experiment")
        eventually(lambda: control.state == "registered", timeout=10, what="whoever was lost is back")


def test_etcd_refuses_writes_when_it_is_full(full_etcd: EtcdCluster) -> None:
    """What the test above stands on."""
    raw = Raw(full_etcd, full_etcd.registry_url)
    fill(raw)
    with pytest.raises((EtcdRefused, EtcdFailed), match="space exceeded"):
        raw.grant(60)


# ---- who leaves while there is no leader


def test_who_leaves_while_the_leader_is_frozen_is_not_left_behind_as_ready(
    healed: EtcdCluster, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frozen one is asked first, and takes all the time that one member may take."""
    leader = healed.leader()
    url = url_first(healed, f"{healed.registry_url}/t/{uuid.uuid4().hex}", leader)
    hub.rng = Unshuffled()
    raw = Raw(healed, url)

    def assert_told(who: Registration) -> None:
        found = raw.instance("experiment", who.instance.id)
        assert found is None or json.loads(found.value)["state"] == "draining", "callers still come"

    registration, control = (
        register("experiment", 9, host="127.0.0.1", ttl=60, quiet=0, registry=url) for _ in range(2)
    )
    leader.pause()
    with monkeypatch.context() as patched:
        # As long as one member may take, less what the test can do without.
        patched.setattr(registrar, "GOODBYE_TIMEOUT", 1.0)
        patched.setattr(registrar, "LEAVE_TIMEOUT", 0.5)
        control.close()
    with pytest.raises(AssertionError, match="callers still come"):
        assert_told(control)
    registration.close()
    assert_told(registration)


# ---- an interpreter that exits

REGISTERING = """
import atexit, contextlib, sys, threading, time
from discoclient import register
from discoclient.control import hub
from discoclient.serving import registration

if sys.argv[1:] == ["without-silence"]:
    registration._silence_at_exit = contextlib.nullcontext
# Another hook runs after ours, and takes its time: long enough for a few of them.
atexit.unregister(hub._close_at_exit)
atexit.register(time.sleep, 0.3)
atexit.register(hub._close_at_exit)
begun = [threading.Event() for _ in range(3)]


def go_on(event):
    while True:
        register("web", 9, registry="memory://x", quiet=0).close()
        event.set()


for event in begun:
    threading.Thread(target=go_on, args=[event], daemon=True).start()
for event in begun:
    event.wait()
"""


def test_threads_that_register_while_the_interpreter_exits_are_cut_short_in_silence(
    processes: Processes,
) -> None:
    running, control = processes.code(REGISTERING), processes.code(REGISTERING, "without-silence")
    assert running.wait() == 0
    assert running.errors == ""
    assert control.wait() == 0
    assert "Exception in thread" in control.errors
