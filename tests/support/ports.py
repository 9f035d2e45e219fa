"""A port for a test that has to know it beforehand. What can listen on port 0 should do that instead."""

from __future__ import annotations

from discoclient.system.ports import pick_ports

__all__ = ["free_port"]


def free_port() -> int:
    """A port that is free on 127.0.0.1, was not given out lately, and is not taken by outgoing connections."""
    return pick_ports(1)[0]
