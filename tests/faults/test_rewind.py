"""etcd comes back as another one: empty, or as it was a while ago. Its revision went back, its ids did not change."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from discoclient import DiscoClient
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster
from tests.faults.controls import ignore_rewind
from tests.faults.harness import assert_sees, look, start_services
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.processes import Processes

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
