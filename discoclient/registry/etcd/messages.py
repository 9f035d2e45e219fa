"""etcd's own messages, from ``python3-etcd3``. Only its generated code is used: its watcher, leases and failover are not."""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any

from ...model.errors import ConfigError

__all__ = ["check_distributions", "kv", "load"]

_SAME_PACKAGE = ("python3-etcd3", "etcd3", "cslab-etcd3", "etcd3-py")


def check_distributions() -> None:
    """Raise `ConfigError` unless exactly ``python3-etcd3`` provides the package ``etcd3``.

    Several distributions install a package of this name and overwrite each other's files, and most of them can't be
    imported with a protobuf of this decade.
    """
    installed = []
    for name in _SAME_PACKAGE:
        try:
            installed.append(metadata.distribution(name).metadata["Name"])
        except metadata.PackageNotFoundError:
            continue
    if not installed:
        raise ConfigError("an etcd registry needs python3-etcd3: pip install python3-etcd3")
    if installed == ["python3-etcd3"]:
        return
    names = ", ".join(installed)
    problem = (
        f"the distributions {names} all install a package named etcd3 and overwrite each other"
        if len(installed) > 1
        else f"the distribution {names} installs a package named etcd3 that is not the one needed"
    )
    raise ConfigError(f"{problem}: pip uninstall {names.replace(',', '')}, then pip install python3-etcd3")


def load() -> Any:
    """The module with etcd's messages. Takes about 0.1 s the first time, so it is not done before it is needed."""
    return import_module("etcd3.etcdrpc.rpc_pb2")


def kv() -> Any:
    """The module with the messages of keys and events."""
    return import_module("etcd3.etcdrpc.kv_pb2")
