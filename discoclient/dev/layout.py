"""Who is who in a cluster: names, ports, and the command line that makes a member of each."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..system.ports import pick_ports
from .binary import EtcdBinary
from .tls import TLSFiles

__all__ = ["Layout", "Tuning"]

_FILE = "cluster.json"

# --unsafe-no-fsync is older (3.4.10), but before this version it also kept the log in the process's own
# memory: a member that was killed and started again had forgotten what it had promised.
_NO_FSYNC_SINCE = (3, 4, 16)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the members of a cluster are set up. Times are in seconds."""

    heartbeat: float = 0.1
    election: float = 1.0
    auto_compaction: float = 0.0
    auto_compaction_revisions: int = 0
    tls: TLSFiles | None = None
    extra_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.001 <= self.heartbeat <= self.election / 5:
            raise ValueError(
                f"etcd wants a heartbeat (here {self.heartbeat} s) of at least 0.001 s "
                f"and at most a fifth of election (here {self.election} s)"
            )
        if self.auto_compaction and self.auto_compaction_revisions:
            raise ValueError("auto_compaction is by seconds or by revisions, not both")

    def flags(self, binary: EtcdBinary) -> list[str]:
        """The flags that all members share."""
        flags = [
            f"--heartbeat-interval={round(self.heartbeat * 1000)}",
            f"--election-timeout={round(self.election * 1000)}",
            # Default since 3.5; without it a member that was paused and comes back deposes a good leader.
            "--pre-vote=true",
            # 3.4 would log in another format, and to the system's journal if there is one.
            "--logger=zap",
            "--log-outputs=stderr",
        ]
        if binary.version_info >= _NO_FSYNC_SINCE:
            flags.append("--unsafe-no-fsync")
        if self.auto_compaction:
            retention = f"{max(1, round(self.auto_compaction))}s"
            flags += ["--auto-compaction-mode=periodic", f"--auto-compaction-retention={retention}"]
        if self.auto_compaction_revisions:
            flags += [
                "--auto-compaction-mode=revision",
                f"--auto-compaction-retention={self.auto_compaction_revisions}",
            ]
        if self.tls is not None:
            flags += self.tls.etcd_flags()
        return [*flags, *self.extra_args]


@dataclass(frozen=True, slots=True)
class Layout:
    """The ports of each member, and the token that the cluster's identity is made from."""

    client_ports: tuple[int, ...]
    peer_ports: tuple[int, ...]
    token: str

    @classmethod
    def pick(cls, nodes: int, *, port: int | None = None) -> Layout:
        """Free ports; with *port*, clients' are that one and the next ones."""
        fixed = _from(port, nodes) if port is not None else ()
        picked = pick_ports(nodes if fixed else 2 * nodes, avoid=fixed)
        return cls(fixed or picked[nodes:], picked[:nodes], secrets.token_hex(4))

    @classmethod
    def load(cls, folder: Path) -> Layout | None:
        """What `save` left there: a member's peer port is in its data, and cannot be another next time."""
        try:
            stored = json.loads((folder / _FILE).read_text())
        except FileNotFoundError:
            return None
        return cls(tuple(stored["client_ports"]), tuple(stored["peer_ports"]), stored["token"])

    @property
    def nodes(self) -> int:
        return len(self.client_ports)

    def with_port(self, port: int) -> Layout:
        """The same cluster, with other ports for clients: they are not part of what a member knows."""
        return replace(self, client_ports=_from(port, self.nodes))

    def with_new_identity(self) -> Layout:
        """The same ports for another cluster: etcd makes the ids of cluster and members from the token."""
        return replace(self, token=secrets.token_hex(4))

    def save(self, folder: Path) -> None:
        (folder / _FILE).write_text(json.dumps(asdict(self)))

    def name(self, index: int) -> str:
        return f"m{index}"

    def data_dir(self, folder: Path, index: int) -> Path:
        return folder / self.name(index)

    def log_path(self, folder: Path, index: int) -> Path:
        return folder / f"{self.name(index)}.log"

    def command(self, folder: Path, index: int, binary: EtcdBinary, tuning: Tuning) -> tuple[str, ...]:
        """The command line of the member number *index*."""
        client = f"{'http' if tuning.tls is None else 'https'}://127.0.0.1:{self.client_ports[index]}"
        peers = [f"http://127.0.0.1:{port}" for port in self.peer_ports]
        return (
            str(binary.path),
            f"--name={self.name(index)}",
            f"--data-dir={self.data_dir(folder, index)}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peers[index]}",
            f"--initial-advertise-peer-urls={peers[index]}",
            "--initial-cluster=" + ",".join(f"{self.name(i)}={url}" for i, url in enumerate(peers)),
            "--initial-cluster-state=new",
            f"--initial-cluster-token={self.token}",
            *tuning.flags(binary),
        )


def _from(port: int, count: int) -> tuple[int, ...]:
    return tuple(range(port, port + count))
