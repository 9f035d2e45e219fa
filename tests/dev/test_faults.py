"""The buttons of a member do what they say, and the cluster sees it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from discoclient.dev import EtcdCluster, EtcdFailed, MemberStatus
from discoclient.dev.leader import find_leader
from tests.dev.kv import get, is_alive, put
from tests.support.eventually import eventually


def test_a_follower_is_killed_and_the_others_go_on(cluster3: EtcdCluster) -> None:
    leader, follower = cluster3.leader(), cluster3.followers()[0]
    follower.kill()
    assert not follower.is_running
    assert follower.pid is not None
    assert not is_alive(follower.pid)
    put(leader, "a", "1")
    assert cluster3.leader() is leader
    cluster3.wait_healthy()  # the two that are to be there


def test_the_leader_is_killed_and_another_leads(cluster3: EtcdCluster) -> None:
    first = cluster3.leader()
    first.kill()
    second = cluster3.leader()
    assert second is not first
    put(second, "a", "1")


def test_a_killed_member_comes_back_on_its_ports_and_catches_up(cluster3: EtcdCluster) -> None:
    first = cluster3.leader()
    pid = first.pid
    first.kill()
    put(cluster3.leader(), "a", "1")
    first.start()
    cluster3.wait_healthy()
    assert first.pid != pid
    assert get(first, "a") == "1"
    assert len(cluster3.followers()) == 2


def test_a_killed_single_node_remembers_all_that_it_promised(etcd_node: EtcdCluster) -> None:
    member = etcd_node.members[0]
    for number in range(50):
        put(member, f"k{number}", str(number))
    member.kill()
    member.start()
    etcd_node.wait_healthy()
    assert [get(member, f"k{number}") for number in range(50)] == [str(number) for number in range(50)]


def test_stop_ends_a_follower_nicely(cluster3: EtcdCluster) -> None:
    follower = cluster3.followers()[0]
    follower.stop()
    assert not follower.is_running
    assert "received signal; shutting down" in follower.log_path.read_text()


def test_a_paused_member_is_silent_until_it_goes_on(etcd_node: EtcdCluster) -> None:
    member = etcd_node.members[0]
    member.status()  # negative control: it does answer
    member.pause()
    assert member.is_running
    assert member.is_paused
    with pytest.raises(TimeoutError):
        member.status(timeout=0.2)
    member.resume()
    assert not member.is_paused
    etcd_node.wait_healthy()


def test_a_paused_leader_loses_its_office_and_follows_when_it_is_back(cluster3: EtcdCluster) -> None:
    first = cluster3.leader()
    first.pause()
    second = cluster3.leader()
    assert second is not first
    first.resume()
    cluster3.wait_healthy()
    eventually(lambda: cluster3.leader() is not first)


def test_the_last_election_counts_and_not_who_still_believes_in_an_older_one() -> None:
    class Member:
        is_wanted = is_running = True

        def __init__(self, own: int, leader: int, term: int) -> None:
            self._status = MemberStatus(
                member_id=own, leader_id=leader, raft_term=term, revision=1, version=""
            )

        def status(self) -> MemberStatus:
            return self._status

    members: Any = [Member(1, leader=1, term=2), Member(2, leader=2, term=3), Member(3, leader=2, term=3)]
    assert find_leader(members) is members[1]
    members = [Member(2, leader=1, term=2), Member(3, leader=1, term=2)]  # the leader does not answer
    assert find_leader(members) is None
    # The first is cut off; with etcd 3.4 its elections, of which nobody hears, raise its term.
    for term in (2, 9):
        members = [Member(1, leader=0, term=term), Member(2, leader=2, term=2), Member(3, leader=2, term=2)]
        assert find_leader(members) is members[1]


def test_a_paused_member_can_be_stopped(etcd_node: EtcdCluster) -> None:
    member = etcd_node.members[0]
    member.pause()
    member.stop(grace=5.0)
    assert not member.is_running
    assert not member.is_paused


def test_without_a_quorum_a_member_that_runs_is_not_healthy(cluster3: EtcdCluster) -> None:
    cluster3.wait_healthy(timeout=1.0)
    last, *others = cluster3.members
    for member in others:
        member.kill()
    with pytest.raises(EtcdFailed, match=r"does not answer after 1\.5 s"):
        cluster3.wait_healthy(timeout=1.5)
    with pytest.raises(EtcdFailed, match=r"no leader after 0\.5 s"):
        cluster3.leader(timeout=0.5)
    assert last.is_running
    for member in others:
        member.start()
    began = time.monotonic()
    cluster3.wait_healthy()
    assert time.monotonic() - began < 4.0  # no read of before stands in the way


def test_a_member_that_died_by_itself_is_an_error_and_not_left_out(cluster3: EtcdCluster) -> None:
    victim = cluster3.followers()[0]
    assert victim._process is not None
    victim._process.kill()  # not through the member: as a crash would
    victim._process.wait()
    with pytest.raises(EtcdFailed, match=f"{victim.name} ended with exit code -9"):
        cluster3.wait_healthy()


def test_when_all_are_gone_nobody_is_healthy(etcd_node: EtcdCluster) -> None:
    etcd_node.members[0].kill()
    with pytest.raises(EtcdFailed, match="no member is running"):
        etcd_node.wait_healthy()


def test_data_is_not_removed_under_a_running_member(etcd_node: EtcdCluster) -> None:
    member = etcd_node.members[0]
    with pytest.raises(RuntimeError, match="running"):
        member.wipe()
    member.kill()
    member.wipe()
    assert not member.data_dir.exists()


def test_a_member_says_in_its_repr_how_it_is(etcd_node: EtcdCluster) -> None:
    member = etcd_node.members[0]
    assert f"pid {member.pid}, running" in repr(member)
    member.pause()
    assert "paused" in repr(member)
    member.kill()
    assert "not running" in repr(member)
