"""A member is cut off from the others, and whoever is attached to it is not."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from discoclient import register
from discoclient.control.hub import Hub
from discoclient.registry.happenings import WatchSettings
from tests.faults.controls import without_hasleader
from tests.faults.harness import Unshuffled, assert_sees, look, url_first
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
