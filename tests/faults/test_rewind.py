"""etcd comes back as another one: empty, or as it was a while ago. Its revision went back, its ids did not change.

Or its revision has overtaken what callers knew before they look again, and gives nothing away.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from discoclient import DiscoClient
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster
from tests.faults.controls import ignore_rewind, ignore_the_past
from tests.faults.harness import assert_sees, look, start_services
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.proxy import FaultProxy

TTL = 3.0
HISTORY = 120
"""So many revisions that an etcd which went back does not get there again while we look."""


def restore(etcd: EtcdCluster, snapshot: Path) -> None:
    """As the manual says: stop the member, restore its data under the same name, start it."""
    member = etcd.members[0]
    member.kill()
    member.wipe()
    flags = [word for word in member.command if word.startswith(("--name=", "--data-dir=", "--initial-"))]
    kept = [flag for flag in flags if not flag.startswith("--initial-cluster-state")]
    etcd.etcdctl("snapshot", "restore", str(snapshot), *kept)
    member.start()
    etcd.wait_healthy()


def go_back(
    etcd: EtcdCluster, processes: Processes, prepare: Callable[[Raw], set[str]], turn_back: Callable[[], None]
) -> None:
    """Callers follow an etcd that goes back; whoever was registered comes back by itself.

    *prepare* returns the ids of ghosts: who is there when it went back, and has long been gone.
    """
    url = f"{etcd.registry_url}/t/{uuid.uuid4().hex}"
    raw = Raw(etcd, url)
    services = start_services(processes, url, count=2, ttl=TTL)
    ids = {service.id for service in services}
    with look(url) as looking, look(url) as control, DiscoClient("experiment", registry=url) as client:
        ignore_rewind(control.resolver)
        for either in (looking, control):
            either.wait_live()
        assert client.get("/").json()["id"] in ids
        ghosts = prepare(raw)
        for number in range(HISTORY):
            raw.put("/history", str(number).encode())
        # What a caller knows is of now, not of the time before the history.
        eventually(
            lambda: min(looking.resolver.revision, control.resolver.revision) > HISTORY,
            what="both are up to date",
        )
        turn_back()
        back_to = raw.put("/now", b"")
        assert back_to < HISTORY - 50, "it went back"
        assert set(raw.instances("experiment")) >= ghosts
        eventually(
            lambda: set(raw.instances("experiment")) == ids, timeout=TTL + 12, what="they registered again"
        )
        # Whoever stands there now stands there under a lease of now.
        assert all(raw.time_to_live(key.lease) > 0 for key in raw.instances("experiment").values())
        newcomer = raw.add("experiment", port=services[0].port)
        assert_sees(looking, newcomer, within=10)
        eventually(
            lambda: looking.ids == {*ids, newcomer.id}, timeout=10, what="it knows exactly who is there"
        )
        with pytest.raises(AssertionError, match="the caller sees"):
            assert_sees(control, newcomer, within=1)
        assert raw.put("/now", b"") < HISTORY, "the control had no other way to find out"
        assert client.get("/").status_code == 200


def test_a_wiped_etcd_fills_again_by_itself_and_callers_find_out(
    etcd_node: EtcdCluster, hub: Hub, processes: Processes
) -> None:
    go_back(etcd_node, processes, lambda raw: set(), etcd_node.wipe_and_restart)


def test_a_restored_backup_is_found_out_and_its_ghosts_go(
    etcd_node: EtcdCluster, hub: Hub, processes: Processes, tmp_path: Path
) -> None:
    snapshot = tmp_path / "backup.db"

    def back_up(raw: Raw) -> set[str]:
        ghost = raw.add("experiment", ttl=int(TTL))
        etcd_node.etcdctl("snapshot", "save", str(snapshot))
        raw.delete(raw.keys.instance("experiment", ghost.id))
        return {ghost.id}

    go_back(etcd_node, processes, back_up, lambda: restore(etcd_node, snapshot))


def test_a_restored_backup_that_overtakes_its_callers_while_they_are_away_is_found_out(
    etcd_node: EtcdCluster, tmp_path: Path
) -> None:
    snapshot = tmp_path / "backup.db"
    with FaultProxy("127.0.0.1", etcd_node.members[0].client_port) as proxy:
        url = f"etcd://{proxy.address}/t/{uuid.uuid4().hex}"
        raw = Raw(etcd_node, url)
        stays, ghost = raw.add("experiment"), raw.add("experiment")
        etcd_node.etcdctl("snapshot", "save", str(snapshot))
        raw.delete(raw.keys.instance("experiment", ghost.id))
        lost = raw.add("experiment")
        with look(url) as looking, look(url) as control:
            ignore_the_past(control.resolver)
            for either in (looking, control):
                either.wait_live()
                assert either.ids == {stays.id, lost.id}
            proxy.cut()
            for either in (looking, control):
                eventually(lambda either=either: either.phases == "suspect", what="it is cut off")
            restore(etcd_node, snapshot)
            known = max(looking.resolver.revision, control.resolver.revision)
            while raw.put("/history", b"") < known + 5:
                pass
            assert set(raw.instances("experiment")) == {stays.id, ghost.id}, "as many as before"
            proxy.heal()
            eventually(lambda: looking.ids == {stays.id, ghost.id}, timeout=5, what="it knows who is there")
            looking.wait_live()
            control.wait_live()
            with pytest.raises(AssertionError, match="so does the control"):
                eventually(
                    lambda: control.ids == {stays.id, ghost.id}, timeout=1.5, what="so does the control"
                )
            assert control.phases == "live", "and believes itself fresh"
