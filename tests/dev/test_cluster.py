"""A cluster comes up, answers, is set up as asked, and leaves nothing behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from discoclient.dev import EtcdCluster, EtcdFailed, EtcdRefused
from discoclient.dev.layout import Layout
from tests.conftest import ELECTION, HEARTBEAT
from tests.dev.kv import cluster_id, get, is_alive, put, revision
from tests.support.eventually import eventually
from tests.support.ports import free_port


def small(nodes: int = 1, **options: object) -> EtcdCluster:
    return EtcdCluster(nodes, heartbeat=HEARTBEAT, election=ELECTION, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_cluster_comes_up_answers_and_leaves_nothing(nodes: int) -> None:
    with small(nodes) as etcd:
        assert len(etcd.members) == nodes
        put(etcd.members[0], "a", "1")
        assert [get(member, "a") for member in etcd.members] == ["1"] * nodes
        pids = [member.pid for member in etcd.members]
        folder = etcd.data_dir
        assert folder.is_dir()
        assert all(pid is not None and is_alive(pid) for pid in pids)
    assert not folder.exists()
    assert not any(pid is not None and is_alive(pid) for pid in pids)


def test_three_members_are_healthy_within_two_seconds() -> None:
    def start(nodes: int) -> float:
        began = time.monotonic()
        with small(nodes):
            return time.monotonic() - began

    # What else the machine is doing is not the question: one member takes 0.4 s at most where nothing is.
    assert any(start(3) < 2.0 * max(1.0, start(1) / 0.4) for _ in range(4))


def test_the_registry_url_names_every_members_port(cluster3: EtcdCluster) -> None:
    ports = [member.client_port for member in cluster3.members]
    assert len(set(ports)) == 3
    assert cluster3.registry_url == "etcd://" + ",".join(f"127.0.0.1:{port}" for port in ports)


def test_the_registry_url_is_not_known_before_the_start() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        _ = small().registry_url


def test_stop_can_be_called_again_and_so_can_start() -> None:
    etcd = small()
    etcd.stop()
    etcd.start()
    first = etcd.data_dir
    assert etcd.start().data_dir == first  # a second start does nothing
    etcd.stop()
    etcd.stop()
    with etcd:
        assert etcd.data_dir != first
        assert get(etcd.members[0], "a") is None


def test_members_have_a_session_of_their_own_so_that_ctrl_c_reaches_us_alone(etcd: EtcdCluster) -> None:
    pid = etcd.members[0].pid
    assert pid is not None
    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_port_that_is_asked_for_is_used_and_the_next_members_have_the_next() -> None:
    port = free_port()
    with small(port=port) as etcd:
        assert etcd.members[0].client_port == port
        assert etcd.registry_url == f"etcd://127.0.0.1:{port}"
    assert Layout.pick(3, port=port).client_ports == (port, port + 1, port + 2)


def test_raft_runs_by_the_clocks_that_were_asked_for() -> None:
    with small() as etcd:
        log = etcd.members[0].log_path.read_text()
    assert '"heartbeat-interval":"50ms"' in log
    assert '"election-timeout":"250ms"' in log


@pytest.mark.parametrize(("heartbeat", "election"), [(0.1, 0.4), (0.0, 1.0)])
def test_clocks_that_etcd_would_refuse_are_refused_before_the_start(
    heartbeat: float, election: float
) -> None:
    with pytest.raises(ValueError, match="heartbeat"):
        EtcdCluster(1, heartbeat=heartbeat, election=election)


def test_a_cluster_without_members_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        EtcdCluster(0)


def test_history_is_forgotten_by_itself_after_the_seconds_that_were_asked_for() -> None:
    with small(auto_compaction=1.0) as etcd:
        member = etcd.members[0]
        old = put(member, "a", "1")
        assert get(member, "a", at=old) == "1"
        put(member, "a", "2")

        def is_forgotten() -> bool:
            try:
                return get(member, "a", at=old) is None
            except EtcdRefused as error:
                return error.code == 11  # out of range: compacted

        eventually(is_forgotten, timeout=15.0)


def test_revisions_to_keep_are_handed_to_etcd() -> None:
    with small(auto_compaction_revisions=7) as etcd:
        assert {"--auto-compaction-mode=revision", "--auto-compaction-retention=7"} < set(
            etcd.members[0].command
        )
    with pytest.raises(ValueError, match="not both"):
        small(auto_compaction=1.0, auto_compaction_revisions=7)


def test_extra_arguments_have_the_last_word() -> None:
    with small(extra_args=["--election-timeout=500", "--max-txn-ops=3"]) as etcd:
        assert '"election-timeout":"500ms"' in etcd.members[0].log_path.read_text()


def test_settings_for_another_etcd_in_the_environment_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ETCD_NAME": "other",
        "ETCDCTL_ENDPOINTS": "elsewhere:2379",
        "http_proxy": "no:1",
    }.items():
        monkeypatch.setenv(name, value)
    with small() as etcd:
        assert etcd.etcdctl("put", "a", "1").strip() == "OK"


def test_an_etcd_that_cannot_start_is_an_error_with_its_last_words() -> None:
    etcd = small(extra_args=["--no-such-flag"])
    with pytest.raises(EtcdFailed, match=r"ended with exit code \d+\n(.|\n)*no-such-flag"):
        etcd.start()
    with pytest.raises(RuntimeError, match="not started"):
        _ = etcd.data_dir


def test_etcdctl_speaks_to_the_cluster(cluster3: EtcdCluster) -> None:
    assert cluster3.etcdctl("put", "a", "1").strip() == "OK"
    assert cluster3.etcdctl("get", "--print-value-only", "a").strip() == "1"
    with pytest.raises(EtcdFailed, match="no-such-command"):
        cluster3.etcdctl("no-such-command")


def test_compaction_forgets_what_came_before(etcd_node: EtcdCluster) -> None:
    member = etcd_node.members[0]
    first, second = put(member, "a", "1"), put(member, "a", "2")
    assert get(member, "a", at=first) == "1"
    assert etcd_node.compact() == second
    with pytest.raises(EtcdRefused, match="compacted"):
        get(member, "a", at=first)
    assert get(member, "a") == "2"


def test_compaction_up_to_a_revision_keeps_what_comes_after(etcd_node: EtcdCluster) -> None:
    member = etcd_node.members[0]
    revisions = [put(member, "a", str(number)) for number in range(3)]
    etcd_node.compact(revisions[1])
    assert get(member, "a", at=revisions[1]) == "1"
    with pytest.raises(EtcdRefused, match="compacted"):
        get(member, "a", at=revisions[0])


@pytest.mark.parametrize("new_identity", [False, True])
def test_a_wiped_cluster_is_empty_on_the_same_ports(etcd_node: EtcdCluster, new_identity: bool) -> None:
    member = etcd_node.members[0]
    put(member, "a", "1")
    url, identity, pid = etcd_node.registry_url, cluster_id(member), member.pid
    etcd_node.wipe_and_restart(new_identity=new_identity)
    assert etcd_node.registry_url == url
    assert etcd_node.members == (member,)  # a test may go on with the members it knows
    assert member.pid != pid
    assert get(member, "a") is None
    assert revision(member) == 1
    assert (cluster_id(member) != identity) == new_identity


def test_kept_data_is_there_the_next_time_on_the_same_ports(tmp_path: Path) -> None:
    with small(3, data_dir=tmp_path / "kept") as etcd:
        put(etcd.members[0], "a", "1")
        url, identity = etcd.registry_url, cluster_id(etcd.members[0])
    assert (tmp_path / "kept").is_dir()
    with small(3, data_dir=tmp_path / "kept") as etcd:
        assert get(etcd.members[2], "a") == "1"
        assert (etcd.registry_url, cluster_id(etcd.members[0])) == (url, identity)


def test_members_with_kept_data_say_goodbye_and_do_not_wait_for_each_other(tmp_path: Path) -> None:
    def stop() -> float:
        etcd = small(3, data_dir=tmp_path).start()
        logs = [member.log_path for member in etcd.members]
        began = time.monotonic()
        etcd.stop()
        assert all("received signal; shutting down" in log.read_text() for log in logs)
        return time.monotonic() - began

    # The leader gives its office to somebody who is just going, and waits 5 s for that, if the order is wrong; or if
    # there was an election in the middle of it, as happens on a busy machine.
    assert any(stop() < 4.0 for _ in range(3))


def test_kept_data_can_be_served_on_another_port(tmp_path: Path) -> None:
    with small(data_dir=tmp_path) as etcd:
        put(etcd.members[0], "a", "1")
    port = free_port()
    with small(data_dir=tmp_path, port=port) as etcd:
        assert etcd.members[0].client_port == port
        assert get(etcd.members[0], "a") == "1"


def test_kept_data_of_another_size_of_cluster_is_refused(tmp_path: Path) -> None:
    with small(1, data_dir=tmp_path):
        pass
    with pytest.raises(ValueError, match="a cluster of 1, not of 3"):
        small(3, data_dir=tmp_path).start()


def test_two_clusters_cannot_have_the_same_folder(tmp_path: Path) -> None:
    with small(data_dir=tmp_path), pytest.raises(BlockingIOError, match="in use"):
        small(data_dir=tmp_path).start()
    with small(data_dir=tmp_path):  # free again
        pass


def test_with_authentication_on_a_cluster_still_counts_as_healthy(etcd_node: EtcdCluster) -> None:
    etcd_node.etcdctl("user", "add", "root:secret")
    etcd_node.etcdctl("user", "grant-role", "root", "root")
    etcd_node.etcdctl("auth", "enable")
    with pytest.raises(EtcdRefused):
        get(etcd_node.members[0], "a")
    etcd_node.wait_healthy()
    assert etcd_node.leader() is etcd_node.members[0]
