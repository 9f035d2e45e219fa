"""A cluster of real etcd processes on this machine."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ..system.waiting import wait_until
from .binary import EtcdBinary, find_etcd, find_etcdctl, inspect_etcd
from .ctl import run_etcdctl
from .failures import EtcdFailed, EtcdRefused, ForeignListener
from .folder import DataFolder
from .health import wait_healthy
from .layout import Layout, Tuning
from .leader import find_leader
from .member import EtcdMember
from .tls import TLSFiles

__all__ = ["EtcdCluster"]

_START_ATTEMPTS = 5
_PEERS_TIMEOUT = 2.0

# Data that is thrown away needs no goodbye, and members that all stop at once wait 5 s for somebody to take
# the leader's office. One that stops alone is gone in a hundredth of a second.
_GRACE_TEMPORARY = 0.1
_GRACE_KEPT = 10.0


class EtcdCluster:
    """*nodes* real etcd processes that listen on 127.0.0.1, on ports that are free when they start.

    ::

        with EtcdCluster(nodes=3) as etcd:
            client = DiscoClient("experiment", registry=etcd.registry_url)
            etcd.leader().kill()

    ``data_dir``: where data, logs and ports are kept for the next time; default: a temporary folder that
    `stop` removes.
    ``port``: the first member's client port, the next members have the next ones; default: any free ones.
    ``heartbeat``, ``election``: Raft's clocks in seconds (0.1 and 1.0). Small ones (0.05 and 0.25) start and
    fail over faster, and allow shorter leases: the shortest TTL that etcd grants is one and a half elections,
    rounded up to a second.
    ``auto_compaction``: seconds of history that are kept, or ``auto_compaction_revisions``: how many
    revisions are; 0: all.
    ``tls``: certificates for clients; members talk to each other in plain. ``extra_args``: further flags for
    etcd; the last word on any flag is theirs. ``binary``: an `EtcdBinary` or a path; default: `find_etcd`.

    The members die with this process, whatever happens to it; a temporary folder that it could not remove any
    more is removed by the next cluster that starts. A cluster is for the process that started it: in a forked
    child `stop` does nothing. Methods that wait raise `EtcdFailed` when their time is over.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        port: int | None = None,
        heartbeat: float = 0.1,
        election: float = 1.0,
        auto_compaction: float = 0.0,
        auto_compaction_revisions: int = 0,
        tls: TLSFiles | None = None,
        extra_args: Sequence[str] = (),
        binary: EtcdBinary | str | os.PathLike[str] | None = None,
    ) -> None:
        if nodes < 1:
            raise ValueError(f"a cluster has at least one member: {nodes}")
        self.nodes = nodes
        self._kept_path = None if data_dir is None else Path(data_dir).absolute()
        self._port = port
        self._tuning = Tuning(
            heartbeat=heartbeat,
            election=election,
            auto_compaction=auto_compaction,
            auto_compaction_revisions=auto_compaction_revisions,
            tls=tls,
            extra_args=tuple(extra_args),
        )
        self._binary = binary if isinstance(binary, EtcdBinary) else None
        self._binary_path = None if binary is None or isinstance(binary, EtcdBinary) else Path(binary)
        self._folder: DataFolder | None = None
        self._owner = 0
        self._members: tuple[EtcdMember, ...] = ()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EtcdCluster of {self.nodes}: {list(self._members)}>"

    @property
    def binary(self) -> EtcdBinary:
        """Which etcd, and which version. Raises `EtcdNotFound`."""
        if self._binary is None:
            path = self._binary_path
            self._binary = find_etcd() if path is None else inspect_etcd(path, source="argument")
        return self._binary

    @property
    def members(self) -> tuple[EtcdMember, ...]:
        """All members, running or not. Empty before the first start."""
        return self._members

    @property
    def data_dir(self) -> Path:
        """The folder with the members' data and logs. Raises `RuntimeError` if the cluster is not started."""
        if self._folder is None:
            raise RuntimeError("the cluster is not started")
        return self._folder.path

    @property
    def registry_url(self) -> str:
        """The address for ``registry=`` and ``$DISCO_REGISTRY``. Raises `RuntimeError` before `start`."""
        if not self._members:
            raise RuntimeError("the cluster was not started: its ports are chosen then")
        tls = self._tuning.tls
        hosts = ",".join(f"127.0.0.1:{member.client_port}" for member in self._members)
        return f"etcd://{hosts}" if tls is None else f"etcds://{hosts}?{tls.query}"

    def start(self, *, timeout: float = 20.0) -> Self:
        """Start all members, and return when each has answered a linearizable read. Nothing if started.

        Ports that somebody takes before etcd does are replaced by others; if they were asked for it is
        `ForeignListener` after a few attempts. Raises `EtcdNotFound` if there is no etcd, `EtcdFailed` after *timeout* seconds.
        """
        if self._folder is not None:
            return self
        binary = self.binary
        deadline = time.monotonic() + timeout
        self._owner = os.getpid()
        atexit.register(self.stop)
        try:
            kept = self._kept_path
            self._folder = DataFolder.temporary() if kept is None else DataFolder.kept(kept)
            self._launch(binary, deadline)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all processes (SIGTERM, then SIGKILL), and remove temporary data. Can be called again."""
        if self._folder is None or self._owner != os.getpid():
            return
        self._end_all(grace=_GRACE_TEMPORARY if self._folder.is_temporary else _GRACE_KEPT)
        self._folder.close()
        self._folder = None
        atexit.unregister(self.stop)

    def wait_healthy(self, timeout: float = 10.0) -> None:
        """Wait until every member that should be answering does answer a linearizable read.

        Members that were stopped, killed or paused through us are left out. Raises `EtcdFailed` if there are
        no others, if one of them died, and after *timeout* seconds.
        """
        wait_healthy(self._members, timeout=timeout)

    def leader(self, *, timeout: float = 10.0) -> EtcdMember:
        """The member that leads now; after the leader was killed or paused, the next one as soon as it does."""
        found: EtcdMember | None = None

        def is_found() -> bool:
            nonlocal found
            found = find_leader(self._members)
            return found is not None

        if not wait_until(is_found, timeout=timeout) or found is None:
            raise EtcdFailed(f"no leader after {timeout:g} s: {self!r}")
        return found

    def followers(self, *, timeout: float = 10.0) -> list[EtcdMember]:
        """The members that run, are not paused, and do not lead."""
        leader = self.leader(timeout=timeout)
        return [member for member in self._members if member.is_wanted and member is not leader]

    def compact(self, revision: int | None = None, *, timeout: float = 10.0) -> int:
        """Forget all history before *revision* (default: the newest), and return that revision.

        Raises `EtcdRefused` if it is compacted already or not there yet.
        """
        leader = self.leader(timeout=timeout)
        if revision is None:
            revision = leader.gateway.read_linearizable(timeout=timeout)
            if revision is None:
                raise EtcdRefused("authentication is on: compact with etcdctl and a user", code=16)
        leader.gateway.call(
            "/v3/kv/compaction", {"revision": str(revision), "physical": True}, timeout=timeout
        )
        return revision

    def wipe_and_restart(self, *, new_identity: bool = False, timeout: float = 20.0) -> None:
        """Kill all members and start them on the same ports with no data: a lost disk, or a rebuilt cluster.

        The new cluster has the old one's ids, as one does that is rebuilt from the same configuration, so
        clients cannot tell it by them; ``new_identity=True`` gives it others.
        """
        deadline = time.monotonic() + timeout
        folder = self.data_dir
        layout = Layout.load(folder)
        assert layout is not None, "a started cluster has its layout on disk"
        if new_identity:
            layout = layout.with_new_identity()
            layout.save(folder)
        self._end_all(grace=0.0)
        for index, member in enumerate(self._members):
            member.wipe()
            member.command = layout.command(folder, index, self.binary, self._tuning)
        self._start_members(deadline)

    def etcdctl(self, *arguments: str, timeout: float = 10.0) -> str:
        """Run etcdctl against the members that run, and return what it prints. Raises `EtcdFailed`."""
        ports = [member.client_port for member in self._members if member.is_wanted]
        return run_etcdctl(
            find_etcdctl(self.binary), arguments, ports=ports, tls=self._tuning.tls, timeout=timeout
        )

    def _launch(self, binary: EtcdBinary, deadline: float) -> None:
        stored = Layout.load(self.data_dir)
        if stored is not None:
            if stored.nodes != self.nodes:
                raise ValueError(f"{self.data_dir} holds a cluster of {stored.nodes}, not of {self.nodes}")
            if self._port is not None:
                stored = stored.with_port(self._port)
        for attempt in range(1, _START_ATTEMPTS + 1):
            layout = stored or Layout.pick(self.nodes, port=self._port)
            self._members = self._build(layout, binary)
            try:
                self._start_members(deadline)
                return
            except ForeignListener:
                self._end_all(grace=0.0)
                if stored is not None or attempt == _START_ATTEMPTS:
                    raise
                for member in self._members:
                    member.wipe()

    def _build(self, layout: Layout, binary: EtcdBinary) -> tuple[EtcdMember, ...]:
        folder = self.data_dir
        layout.save(folder)
        return tuple(
            EtcdMember(
                name=layout.name(index),
                command=layout.command(folder, index, binary, self._tuning),
                client_port=layout.client_ports[index],
                peer_port=layout.peer_ports[index],
                data_dir=layout.data_dir(folder, index),
                log_path=layout.log_path(folder, index),
                tls=self._tuning.tls,
            )
            for index in range(self.nodes)
        )

    def _start_members(self, deadline: float) -> None:
        # One after the other is faster than all at once: a new member first asks the others who is there, and gives
        # each a second. One that does not listen yet refuses at once, one that is through with asking answers at
        # once, but members that all listen and all ask wait for each other.
        for member in self._members:
            member.start(timeout=deadline - time.monotonic())
            member.wait_answering_peers(timeout=_PEERS_TIMEOUT)
        self.wait_healthy(deadline - time.monotonic())

    def _end_all(self, *, grace: float) -> None:
        until = time.monotonic() + grace
        # Where there is time for a goodbye the leader's comes last: it hands its office over before it goes, waits 5 s
        # for somebody who is just going too, and does not wait when it sees nobody.
        leader = find_leader(self._members) if grace > _GRACE_TEMPORARY and self.nodes > 1 else None
        others = [member for member in self._members if member is not leader]
        for leaving in (others, [leader] if leader else []):
            if grace > 0:
                for member in leaving:
                    member.terminate()
            for member in leaving:
                member.stop(grace=max(0.0, until - time.monotonic()))
