"""Real etcd for development, tests and the demo: ``with EtcdCluster(nodes=3) as etcd: ...``.

Nothing here is for production: members listen on 127.0.0.1, keep their data in a temporary folder without
``fsync``, and die with the process that started them, even if that one is killed with SIGKILL. Linux is what
this is made for; elsewhere it runs without the promises that need ``/proc`` and ``prctl`` (dying with the
parent, and knowing whose listener a port is).
"""

from __future__ import annotations

from .binary import EtcdBinary, EtcdNotFound, find_etcd, find_etcdctl
from .cluster import EtcdCluster
from .failures import EtcdFailed, EtcdRefused, ForeignListener
from .grpc_proxy import GrpcProxy
from .member import EtcdMember, MemberStatus
from .tls import TLSFiles

__all__ = [
    "EtcdBinary",
    "EtcdCluster",
    "EtcdFailed",
    "EtcdMember",
    "EtcdNotFound",
    "EtcdRefused",
    "ForeignListener",
    "GrpcProxy",
    "MemberStatus",
    "TLSFiles",
    "find_etcd",
    "find_etcdctl",
]
