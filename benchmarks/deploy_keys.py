"""The four keys of the way of 2014, and how a service writes them: get, set, set, and nothing that holds these together.

uswitch/etcd-experiment wrote them with etcd's HTTP interface of the time. Its successor is the JSON gateway: no client library,
so that this way does not pay for one at each start of the service.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from typing import Any

__all__ = ["ROOT", "key", "read", "swap"]

ROOT = "/uswitch/experiment/"


def key(name: str, which: str) -> str:
    """*name* is ``port`` or ``pid``, *which* ``current`` or ``previous``."""
    return f"{ROOT}{name}/{which}"


async def swap(etcd: int, name: str, value: str) -> None:
    """The original's ``etcd-swap-value``: what is current becomes previous, if there is any; then *value* becomes current."""
    current = await read(etcd, key(name, "current"))
    if current is not None:
        await _put(etcd, key(name, "previous"), current)
    await _put(etcd, key(name, "current"), value)


async def read(etcd: int, name: str) -> str | None:
    """The value of a key in the etcd that listens on that port of this machine."""
    found = (await _call(etcd, "range", {"key": _encode(name)})).get("kvs")
    return b64decode(found[0]["value"]).decode() if found else None


async def _put(etcd: int, name: str, value: str) -> None:
    await _call(etcd, "put", {"key": _encode(name), "value": _encode(value)})


def _encode(text: str) -> str:
    return b64encode(text.encode()).decode()


async def _call(etcd: int, what: str, message: dict[str, str]) -> Any:
    body = json.dumps(message).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", etcd)
    try:
        # HTTP/1.0: the answer ends where the connection does
        writer.write(
            b"POST /v3/kv/%b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (what.encode(), len(body), body)
        )
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if head.split(b" ")[1:2] != [b"200"]:
        raise RuntimeError(f"etcd: {(head or b'no answer').decode()}")
    return json.loads(answer)
