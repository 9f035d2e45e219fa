"""Callers that start while there is no etcd, or none with a quorum."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from discoclient import DiscoClient, DiscoveryTimeout, RegistryUnavailable, register
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster
from tests.faults.controls import without_one_members_word
from tests.faults.harness import FAST, look, resolver_of, start_services
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.processes import Processes


def test_without_etcd_a_call_says_so_in_time_and_works_as_soon_as_etcd_is_there(
    etcd_node: EtcdCluster, hub: Hub, processes: Processes
) -> None:
    url, member = etcd_node.registry_url, etcd_node.members[0]
    (service,) = start_services(processes, url, ttl=15)
    member.kill()
    # Negative control: the protection is that it tries again soon. (A caller that never tries again is no caller.)
    lazy = replace(FAST, backoff_first=1e6, backoff_cap=1e6)
    with (
        DiscoClient("experiment", registry=url, discovery_timeout=1.0) as client,
        # Its only try is to be now: not after it waited to be announced, and not for one member's word once half of
        # discovery_timeout is over.
        look(f"{url}?presence=0", settings=lazy, discovery_timeout=1e6) as control,
    ):
        began = time.monotonic()
        with pytest.raises(
            DiscoveryTimeout, match=r"'experiment' after 1 s; the registry did not answer: etcd"
        ) as told:
            client.get("/")
        assert 0.9 < time.monotonic() - began < 3
        assert isinstance(told.value.__cause__, RegistryUnavailable)
        assert told.value.request.url == "http://experiment/", "as with every error of httpx"
        # No less timely, now that it is known for a while that there is no registry.
        began = time.monotonic()
        with pytest.raises(DiscoveryTimeout):
            client.get("/")
        assert 0.9 < time.monotonic() - began < 3
        member.start()
        etcd_node.wait_healthy()
        up_at = time.monotonic()
        client.wait_ready(10)
        assert client.get("/").status_code == 200
        assert time.monotonic() - up_at < 3
        with pytest.raises(AssertionError, match="not within"):
            eventually(lambda: service.id in control.ids, timeout=max(1.0, time.monotonic() - up_at))


def test_without_etcd_a_registration_fails_in_time_and_leaves_nothing_behind(
    etcd_node: EtcdCluster, hub: Hub
) -> None:
    url, member = etcd_node.registry_url, etcd_node.members[0]
    member.kill()
    began = time.monotonic()
    with pytest.raises(RegistryUnavailable, match="could not register within 1 s: etcd"):
        register("experiment", 9, host="127.0.0.1", registry=url, timeout=1.0)
    assert time.monotonic() - began < 3
    member.start()
    etcd_node.wait_healthy()
    raw = Raw(etcd_node, url)
    # Negative control: one that does not give up registers as soon as it can; and it is the only one.
    with register("experiment", 9, host="127.0.0.1", registry=url, quiet=0) as registration:
        assert set(raw.instances("experiment")) == {registration.instance.id}


def test_without_a_quorum_a_caller_starts_from_one_members_word_and_marks_it_suspect(
    healed: EtcdCluster, url: str, raw: Raw, hub: Hub, processes: Processes
) -> None:
    (service,) = start_services(processes, url, ttl=15)
    survivor, *others = healed.members
    eventually(
        lambda: service.id in raw.instances("experiment", at=survivor, serializable=True),
        what="the member that is left has heard of it",
    )
    for member in others:
        member.kill()
    with (
        DiscoClient("experiment", registry=url, discovery_timeout=3.0) as client,
        DiscoClient("experiment", registry=f"{url}?hostnames=1", discovery_timeout=3.0) as control,
    ):
        without_one_members_word(resolver_of(control))
        resolver = resolver_of(client)
        began = time.monotonic()
        response = client.get("/")
        assert response.json()["id"] == service.id
        assert 1.2 < time.monotonic() - began < 3, "a quorum gets half of discovery_timeout, and not more"
        assert resolver.snapshot is not None
        assert resolver.snapshot.suspect
        assert resolver.age() is None, "nobody proved it"
        with pytest.raises(DiscoveryTimeout):
            control.get("/")
        for member in others:
            member.start()
        healed.wait_healthy()
        eventually(lambda: not resolver.snapshot.suspect, timeout=10, what="the quorum's word took its place")
        assert resolver.age() is not None
        newcomer = raw.add("experiment")
        eventually(lambda: newcomer.id in resolver.snapshot.by_id, timeout=5, what="it is followed")
