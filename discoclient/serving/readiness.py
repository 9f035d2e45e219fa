"""Is the command ready, and well? The probe of ``disco run``, from what it was told of the port and of the service's health."""

from __future__ import annotations

import asyncio

from ..system.listeners import Listener
from .child import Child
from .prober import Probe, probe_http, probe_tcp

__all__ = ["readiness"]


def readiness(
    child: Child, *, scheme: str, host: str, health_path: str | None, port_file: str | None
) -> Probe:
    """A probe that is content when *child* answers 2xx at *health_path*, at the address that callers will use; without a
    path, when the listener there is its own, and accepts.
    """

    async def probe() -> str | None:
        port = await asyncio.to_thread(lambda: child.port)
        if port is None:
            return f"it has not written its port to {port_file} yet"
        if health_path is not None:
            problem = await probe_http(scheme, host, port, health_path)()
            if problem is None:
                child.settle(port)
            return problem
        found = await asyncio.to_thread(child.look)
        if found is Listener.FOREIGN:
            return f"another process listens on {host}:{port}"
        problem = await probe_tcp(host, port)()
        # Nobody was there a moment ago: who took the connection is only known by another look.
        if (
            problem is None
            and found is Listener.NOBODY
            and await asyncio.to_thread(child.look) is not Listener.OURS
        ):
            problem = f"another process listens on {host}:{port}"
        if problem is None:
            child.settle(port)
        if problem is not None and await asyncio.to_thread(child.is_elsewhere):
            return f"{problem}; it listens on 127.0.0.1 alone: have it listen on {host} (or 0.0.0.0), or give --host 127.0.0.1"
        return problem

    return probe
