"""What lies between a client and its member fails: silence, delay, resets, and what was missed meanwhile."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import pytest

from discoclient import Instance, Registration, RegistryUnavailable, register
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster
from discoclient.registry.happenings import WatchSettings
from tests.faults.controls import clear_before_listing, forget_where_the_watch_was, ignore_compaction
from tests.faults.harness import FAST, Look, assert_sees, look
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy


@pytest.fixture
def proxies(cluster: EtcdCluster) -> Iterator[list[FaultProxy]]:
    """One in front of each member, for clients."""
    with ExitStack() as stack:
        yield [stack.enter_context(FaultProxy("127.0.0.1", member.client_port)) for member in cluster.members]


@pytest.fixture
def proxied(proxies: list[FaultProxy], url: str) -> str:
    return f"etcd://{','.join(proxy.address for proxy in proxies)}{url[url.index('/t/') :]}"


def miss_nothing_through_a_silent_connection(
    raw: Raw, proxies: list[FaultProxy], proxied: str, settings: WatchSettings, *, within: float
) -> None:
    # Negative control: silence is taken for "nothing happened"; the keepalive would find out after 15 s.
    believing = replace(settings, silence=600.0)
    with look(proxied, settings=settings) as looking, look(proxied, settings=believing) as control:
        for either in (looking, control):
            either.wait_live()
        proxies[0].blackhole()  # nothing is closed: to both ends the other one is merely quiet
        silent_at = time.monotonic()
        newcomer = raw.add("experiment")
        assert_sees(looking, newcomer, within=within)
        with pytest.raises(AssertionError, match="the caller sees"):
            assert_sees(control, newcomer, within=min(1.0, max(0.0, 10 - (time.monotonic() - silent_at))))
        # The watch has moved to another member and is alive there.
        again = raw.add("experiment")
        assert_sees(looking, again, within=2)


def test_a_watch_whose_connection_is_half_open_is_found_out_and_moved(
    healed: EtcdCluster, raw: Raw, proxies: list[FaultProxy], proxied: str
) -> None:
    miss_nothing_through_a_silent_connection(raw, proxies, proxied, FAST, within=9)


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_a_watch_whose_connection_is_half_open_is_found_out_with_the_usual_times(
    healed: EtcdCluster, raw: Raw, proxies: list[FaultProxy], proxied: str
) -> None:
    miss_nothing_through_a_silent_connection(raw, proxies, proxied, WatchSettings(), within=20)


def impatient(registration: Registration) -> None:
    """Give every renewal a tenth of a second."""
    lease: Any = registration._registrar._keeper.lease
    renew = lease.renew

    async def renew_quickly() -> float:
        try:
            async with asyncio.timeout(0.1):
                return float(await renew())
        except TimeoutError:
            raise RegistryUnavailable("no answer in time") from None

    lease.renew = renew_quickly


def test_a_slow_network_costs_no_lease_and_no_change(
    healed: EtcdCluster, hub: Hub, raw: Raw, proxies: list[FaultProxy], proxied: str
) -> None:
    def stamp(registration: Registration) -> tuple[int, int] | None:
        key = raw.instance("experiment", registration.instance.id)
        return (key.create_revision, key.mod_revision) if key is not None else None

    def registered() -> Registration:
        return register("experiment", 9, host="127.0.0.1", ttl=3, quiet=0, registry=proxied)

    with look(proxied) as looking, registered() as registration, registered() as control:
        looking.wait_live()
        impatient(control)
        before, control_before = stamp(registration), stamp(control)
        assert before is not None
        for proxy in proxies:
            proxy.delay(0.1)
        slow_at = time.monotonic()
        eventually(
            lambda: stamp(control) != control_before, timeout=10, what="the impatient one lost its lease"
        )
        newcomer = raw.add("experiment")
        assert_sees(looking, newcomer, within=5)
        eventually(lambda: time.monotonic() - slow_at > 3.5, what="a ttl has passed")
        assert stamp(registration) == before, "renewed all the time"
        assert looking.lists == 1
        for proxy in proxies:
            proxy.heal()


class Away:
    """Callers behind a proxy; what happens in the block happens while they are cut off."""

    def __init__(self, etcd: EtcdCluster) -> None:
        self._proxy = FaultProxy("127.0.0.1", etcd.members[0].client_port)
        self.url = f"etcd://{self._proxy.address}/t/{uuid.uuid4().hex}"
        self.raw = Raw(etcd, self.url)
        self.stays = self.raw.add("experiment")
        self.leaves = self.raw.add("experiment")

    def __enter__(self) -> Self:
        self._proxy.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._proxy.close()

    def miss(self, *lookers: Look, compact: EtcdCluster | None = None) -> Instance:
        """One leaves, another comes, and (compacted or not) the callers are told nothing of it. Returns the one that came."""
        for looking in lookers:
            looking.wait_live()
            assert looking.ids == {self.stays.id, self.leaves.id}
        self._proxy.cut()
        self.raw.delete(self.raw.keys.instance("experiment", self.leaves.id))
        newcomer = self.raw.add("experiment")
        if compact is not None:
            compact.compact()
        for looking in lookers:
            eventually(
                lambda looking=looking: looking.phases == "suspect", what="it knows that it is cut off"
            )
        self._proxy.heal()
        return newcomer

    def assert_followed(self, looking: Look, newcomer: Instance, *, lists: int, within: float = 5.0) -> None:
        wanted = {self.stays.id, newcomer.id}
        eventually(lambda: looking.ids == wanted, timeout=within, what="the caller knows who is there")
        assert all(self.stays.id in snapshot.by_id for snapshot in looking.snapshots), "the set dipped"
        assert looking.lists == lists


def test_what_happened_while_a_caller_was_cut_off_is_delivered_without_listing_again(
    etcd_node: EtcdCluster,
) -> None:
    with (
        Away(etcd_node) as away,
        look(away.url) as looking,
        look(away.url, settings=replace(FAST, silence=600), without=forget_where_the_watch_was) as control,
    ):
        newcomer = away.miss(looking, control)
        away.assert_followed(looking, newcomer, lists=1)
        control.wait_live()
        with pytest.raises(AssertionError, match="knows who is there"):
            away.assert_followed(control, newcomer, lists=1, within=0.5)


def test_compaction_while_a_caller_was_cut_off_costs_one_listing_and_the_set_never_dips(
    etcd_node: EtcdCluster,
) -> None:
    with (
        Away(etcd_node) as away,
        look(away.url) as looking,
        look(away.url) as stubborn,
        look(away.url) as clearing,
    ):
        ignore_compaction(stubborn.resolver)
        clear_before_listing(clearing.resolver)
        newcomer = away.miss(looking, stubborn, clearing, compact=etcd_node)
        away.assert_followed(looking, newcomer, lists=2)
        with pytest.raises(AssertionError, match="knows who is there"):
            away.assert_followed(stubborn, newcomer, lists=2, within=1)
        with pytest.raises(AssertionError, match="the set dipped"):
            away.assert_followed(clearing, newcomer, lists=2)
        assert looking.resolver.phase == "live"
        later = away.raw.add("experiment")
        assert_sees(looking, later, within=2)
