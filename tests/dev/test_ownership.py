"""Whose etcd is it? A foreign one on our port is noticed before a word is said to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from discoclient.dev import EtcdCluster, ForeignListener, find_etcd
from discoclient.dev import layout as layout_module
from discoclient.dev.gateway import Gateway
from discoclient.system.listeners import Listener, find_owner, look_at
from tests.conftest import ELECTION, HEARTBEAT
from tests.dev.kv import is_alive, revision
from tests.support.eventually import eventually
from tests.support.ports import free_port


def script(path: Path, last_line: str) -> Path:
    """An `etcd` that tells a version, and otherwise does *last_line*."""
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "etcd Version: 3.9.9" && exit 0\n{last_line}\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def foreign() -> Iterator[socket.socket]:
    """Somebody who listens, and would take note of any connection."""
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        listener.setblocking(False)
        yield listener


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def test_a_listener_is_told_from_somebody_elses(foreign: socket.socket, etcd: EtcdCluster) -> None:
    port, pid = port_of(foreign), etcd.members[0].pid
    assert pid is not None
    assert look_at(port, os.getpid()) is Listener.OURS
    assert look_at(port, pid) is Listener.FOREIGN
    assert look_at(etcd.members[0].client_port, pid) is Listener.OURS
    assert look_at(free_port(), pid) is Listener.NOBODY
    assert find_owner(port) == os.getpid()
    assert find_owner(free_port()) is None


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_a_listener_on_every_address_is_seen_too(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen()
        assert look_at(port_of(listener), os.getpid()) is Listener.OURS


def test_a_taken_port_is_an_error_that_names_its_owner_and_nothing_is_sent_there(
    foreign: socket.socket,
) -> None:
    with pytest.raises(ForeignListener) as caught:
        EtcdCluster(1, port=port_of(foreign)).start()
    assert caught.value.port == port_of(foreign)
    assert caught.value.owner == os.getpid()
    with pytest.raises(BlockingIOError):
        foreign.accept()


def test_a_healthy_etcd_of_somebody_else_is_not_taken_for_ours(etcd: EtcdCluster, tmp_path: Path) -> None:
    """Ours starts and never listens; the port answers all the same, as healthy as can be."""
    port, before = etcd.members[0].client_port, revision(etcd.members[0])
    assert Gateway(port).read_linearizable(timeout=5.0) == before  # negative control: asking would not tell
    lazy = script(tmp_path / "etcd", "exec sleep 600")
    with pytest.raises(ForeignListener) as caught:
        EtcdCluster(1, port=port, binary=lazy).start()
    assert caught.value.owner == etcd.members[0].pid
    assert etcd.members[0].is_running


def test_a_script_that_does_not_exec_etcd_is_refused_and_leaves_no_etcd(tmp_path: Path) -> None:
    real = find_etcd().path
    wrapper = script(tmp_path / "etcd", f'{real} "$@" &\necho $! > {tmp_path}/pid\nwait')
    with pytest.raises(ForeignListener, match="`exec` it"):
        EtcdCluster(1, heartbeat=HEARTBEAT, election=ELECTION, binary=wrapper).start()
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not is_alive(pid), what="the real etcd is gone too")


def test_a_script_that_does_exec_etcd_is_fine(tmp_path: Path) -> None:
    wrapper = script(tmp_path / "etcd", f'exec {find_etcd().path} "$@"')
    with EtcdCluster(1, heartbeat=HEARTBEAT, election=ELECTION, binary=wrapper) as etcd:
        assert etcd.binary.source == "argument"


def test_a_port_that_was_taken_meanwhile_is_replaced(
    foreign: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    picked: list[tuple[int, ...]] = []

    def pick_ports(count: int = 1, *, avoid: object = ()) -> tuple[int, ...]:
        # The first time as if the foreign listener had come between the choice and the start.
        picked.append(tuple(free_port() for _ in range(count)) if picked else (free_port(), port_of(foreign)))
        return picked[-1]

    monkeypatch.setattr(layout_module, "pick_ports", pick_ports)
    with EtcdCluster(1, heartbeat=HEARTBEAT, election=ELECTION) as etcd:
        assert etcd.members[0].client_port != port_of(foreign)
    assert len(picked) == 2
    with pytest.raises(BlockingIOError):
        foreign.accept()


def test_a_member_does_not_come_back_on_a_port_that_somebody_took(etcd_node: EtcdCluster) -> None:
    member = etcd_node.members[0]
    member.kill()
    with socket.create_server(("127.0.0.1", member.client_port)), pytest.raises(ForeignListener):
        member.start()
    assert not member.is_running
    member.start()
    etcd_node.wait_healthy()
