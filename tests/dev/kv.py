"""Reading and writing a few keys through a member's JSON gateway."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from discoclient.dev import EtcdMember

__all__ = ["cluster_id", "get", "is_alive", "put", "revision"]


def put(member: EtcdMember, key: str, value: str, *, timeout: float = 5.0) -> int:
    """Returns the revision."""
    body = {"key": _encode(key), "value": _encode(value)}
    return int(member.gateway.call("/v3/kv/put", body, timeout=timeout)["header"]["revision"])


def get(member: EtcdMember, key: str, *, at: int = 0, timeout: float = 5.0) -> str | None:
    """The value as of revision *at*; 0: the newest."""
    body: dict[str, Any] = {"key": _encode(key), "revision": str(at)}
    found = member.gateway.call("/v3/kv/range", body, timeout=timeout).get("kvs", [])
    return base64.b64decode(found[0].get("value", "")).decode() if found else None


def revision(member: EtcdMember) -> int:
    found = member.gateway.read_linearizable(timeout=5.0)
    assert found is not None
    return found


def cluster_id(member: EtcdMember) -> str:
    header = member.gateway.call("/v3/maintenance/status", {}, timeout=5.0)["header"]
    return str(header["cluster_id"])


def is_alive(pid: int) -> bool:
    """Whether the process runs. One that has ended and that nobody has waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX" and os.path.exists(f"/proc/{pid}")


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
