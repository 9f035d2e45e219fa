"""A member is cut off from the others, and whoever is attached to it is not."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from discoclient import DiscoClient, DiscoveryTimeout, NoInstances, register
from discoclient.control.hub import Hub
from discoclient.registry.happenings import WatchSettings
from tests.faults.controls import believe_that_there_is_nothing, without_hasleader
from tests.faults.harness import Unshuffled, assert_sees, look, resolver_of, url_first
from tests.faults.partition import Partition, partitionable
from tests.faults.raw import Raw
from tests.support.eventually import eventually

# Nothing but the member's own word may tell that it is cut off.
PATIENT = WatchSettings(silence=600, backoff_first=0.1, backoff_cap=0.5)


@pytest.fixture
def partition() -> Iterator[Partition]:
    with partitionable(heartbeat=0.1, election=0.5) as made:
        yield made


def test_a_member_that_is_cut_off_from_the_others_is_left_by_watch_and_lease(
    partition: Partition, hub: Hub
) -> None:
    cluster = partition.cluster
    url = f"{cluster.registry_url}/t/{uuid.uuid4().hex}"
    raw = Raw(cluster, url)
    lonely = cluster.followers()[0]
    attached = url_first(cluster, url, lonely)
    hub.rng = Unshuffled()
    with (
        register("experiment", 9, host="127.0.0.1", ttl=3, quiet=0, registry=attached) as registration,
        look(attached, settings=PATIENT) as looking,
        look(attached, settings=PATIENT, without=without_hasleader) as control,
    ):
        before = raw.instance("experiment", registration.instance.id)
        for either in (looking, control):
            either.wait_live()
        partition.isolate(lonely)
        isolated_at = time.monotonic()
        eventually(
            lambda: cluster.leader(timeout=30) is not lonely, timeout=40, what="the others have a leader"
        )
        newcomer = raw.add("experiment", at=cluster.leader())
        assert newcomer.id not in raw.instances("experiment", at=lonely, serializable=True), "it is cut off"
        assert_sees(looking, newcomer, within=8)
        assert looking.lists == 1, "the watch was resumed elsewhere, nothing was listed again"
        with pytest.raises(AssertionError, match="the caller sees"):
            assert_sees(control, newcomer, within=max(1.0, time.monotonic() - isolated_at))
        eventually(lambda: time.monotonic() - isolated_at > 4.5, what="a lease that was not renewed is gone")
        assert raw.instance("experiment", registration.instance.id) == before, "renewed elsewhere"
        partition.heal()
        cluster.wait_healthy()
        assert_sees(control, newcomer, within=8)


def test_a_start_does_not_believe_a_member_that_is_cut_off_and_has_heard_of_nothing(
    partition: Partition, hub: Hub
) -> None:
    cluster = partition.cluster
    url = f"{cluster.registry_url}/t/{uuid.uuid4().hex}"
    raw = Raw(cluster, url)
    lonely = cluster.followers()[0]
    others = [member for member in cluster.members if member is not lonely]
    partition.isolate(lonely)
    eventually(lambda: cluster.leader(timeout=30) is not lonely, timeout=40, what="the others have a leader")
    newcomer = raw.add("experiment", at=cluster.leader())
    for member in others:
        member.kill()
    assert raw.instances("experiment", at=lonely, serializable=True) == {}, "it says that there is nothing"
    with (
        DiscoClient("experiment", registry=url, discovery_timeout=1.0) as client,
        DiscoClient("experiment", registry=f"{url}?hostnames=1", discovery_timeout=1.0) as control,
    ):
        believe_that_there_is_nothing(resolver_of(control))
        with pytest.raises(DiscoveryTimeout):
            client.get("/")
        with pytest.raises(NoInstances):
            control.get("/")
        for member in others:
            member.start()
        partition.heal()
        cluster.wait_healthy()
        client.wait_ready(10)
        assert set(resolver_of(client).snapshot.by_id) == {newcomer.id}
